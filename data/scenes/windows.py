"""The tiles that a raster gives: squares on its own pixels, row by row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine

from data.errors import InputError
from data.prepare.contract.source import Place
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import (
    ALIGNED,
    CELL,
    Grid,
    Lattice,
    edges_in,
    grid_of_pixels,
)
from data.prepare.place.projection import is_true_metric, local_crs, to_degrees

DIGITS = 3  # of a row or column in a name, at least


@dataclass(frozen=True)
class Window:
    """A tile of a scene."""

    name: str  # r012-c034: row and column, counted in strides from the upper left
    grid: Grid


@dataclass(frozen=True)
class _Net:
    """Cells of 10 m over a whole scene, counted from its upper left corner."""

    crs: object
    corner: Affine  # (column, row) of cells -> coordinates; its pixels may be 10 m to 0.05 cell
    rows: int
    columns: int
    outline: shapely.Geometry | None = None  # tiles lie inside it; None: all do


def windows_of(place: Place, *, cells: int, stride: int) -> list[Window]:
    """The tiles of a scene, whole ones only.

    Pixels of 10 m on the ground are the cells of the tiles, wherever their corner lies. Over other
    pixels in metres the cells begin at the raster's upper left corner, in its CRS. Over any other
    raster they lie on multiples of 10 m in the local zone of its middle.

    Args:
        place: of the raster.
        cells: along a side of a tile.
        stride: cells from one tile to the next.

    Raises:
        InputError: the scene is smaller than a tile, or it is so large that its coordinates are
            metres in a part of it only.
    """
    net = _net(place, cells)
    if min(net.rows, net.columns) < cells:
        raise InputError(
            f"the scene has {net.rows} x {net.columns} cells of 10 m, less than a tile of "
            f"{cells} x {cells}; lower scene.cells"
        )
    rows = (net.rows - cells) // stride + 1
    columns = (net.columns - cells) // stride + 1
    windows = list(_windows(net, (rows, columns), cells=cells, stride=stride))
    if not windows:
        raise InputError(f"no tile of {cells} x {cells} cells of 10 m lies wholly in the scene")
    return windows


def has_cells(place: Place, cells: int) -> bool:
    """Whether the pixels of a raster are cells of 10 m, counted over ``cells`` of them.

    A drift that matters over a whole scene may not matter over a tile.
    """
    upright = place.georeference.north_up(place.shape)
    pixel = upright.transform
    x, y = upright.centre(place.shape)
    tile = Georeference(Affine(pixel.a, 0, x, 0, pixel.e, y), upright.crs)
    return grid_of_pixels(tile, (cells, cells)) is not None


def _windows(net: _Net, counts: tuple[int, int], *, cells: int, stride: int) -> Iterator[Window]:
    """The tiles of a net that lie inside its outline."""
    rows, columns = counts
    row_digits = max(DIGITS, len(str(rows - 1)))
    column_digits = max(DIGITS, len(str(columns - 1)))
    for row in range(rows):
        for column in range(columns):
            x0, y0 = net.corner @ (column * stride, row * stride)
            grid = Grid(net.crs, x0, y0, cells)
            if net.outline is None or net.outline.contains(shapely.box(*grid.bounds)):
                yield Window(f"r{row:0{row_digits}}-c{column:0{column_digits}}", grid)


def _net(place: Place, cells: int) -> _Net:
    """The cells over a scene of which tiles of ``cells`` cells are cut."""
    upright = place.georeference.north_up(place.shape)
    bounds = upright.bounds(place.shape)
    middle = upright.centre(place.shape)
    if not is_true_metric(upright.crs, *middle):
        return _local_net(upright, place.shape)
    _need_metres(upright.crs, [(x, y) for x in bounds[::2] for y in bounds[1::2]])
    pixel = upright.transform
    rows, columns = place.shape
    if has_cells(place, cells):
        return _Net(upright.crs, pixel, rows, columns)
    slack = ALIGNED * pixel.a  # a side of 59.9999999 m is one of 60 m
    return _Net(
        upright.crs,
        Affine(CELL, 0, pixel.c, 0, -CELL, pixel.f),
        rows=int((bounds.top - bounds.bottom + slack) // CELL),
        columns=int((bounds.right - bounds.left + slack) // CELL),
    )


def _local_net(upright: Georeference, shape: tuple[int, int]) -> _Net:
    """Cells in the local zone of a raster's middle."""
    middle = to_degrees(upright.crs).transform(*upright.centre(shape))
    lattice = Lattice(local_crs(*middle))
    points = edges_in(upright.bounds(shape), upright.crs, lattice.crs).reshape(-1, 2)
    _need_metres(lattice.crs, [(float(x), float(y)) for x, y in points])
    left, bottom = np.ceil(points.min(axis=0) / CELL - 1e-6) * CELL
    right, top = np.floor(points.max(axis=0) / CELL + 1e-6) * CELL
    outline = shapely.Polygon(points).buffer(ALIGNED * CELL)
    shapely.prepare(outline)
    return _Net(
        lattice.crs,
        Affine(CELL, 0, float(left), 0, -CELL, float(top)),
        rows=int((top - bottom) // CELL),
        columns=int((right - left) // CELL),
        outline=outline,
    )


def _need_metres(crs, points: list[tuple[float, float]]) -> None:
    """Raise InputError unless coordinates are metres on the ground at all these points."""
    if not all(is_true_metric(crs, x, y) for x, y in points):
        raise InputError(
            f"the scene is so large that metres of {crs.to_string()[:60]} are metres on the ground "
            "in a part of it only; cut it into several files or zones first (gdalwarp), or name "
            "tiles with 'centre' and 'cells'"
        )
