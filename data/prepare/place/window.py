"""Which pixels of a raster a tile needs."""

from dataclasses import dataclass

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import CELL, Grid
from data.prepare.place.projection import turn_of

# Source pixels read around a window. Bilinear interpolation looks one pixel out, and the
# coordinates of the warper are approximate.
MARGIN = 2
EDGE_POINTS = 21  # along each edge of a square that is bent into another CRS


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels of a raster."""

    rows: slice
    columns: slice
    georeference: Georeference  # of the rectangle's own pixels

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the rectangle."""
        height = self.rows.stop - self.rows.start
        width = self.columns.stop - self.columns.start
        return height, width


def window_of(source: Georeference, shape: tuple[int, int], grid: Grid) -> Window | None:
    """The pixels of a raster that resampling onto ``grid`` needs.

    Longitudes of the raster may have any winding (0 to 360, beyond 180); the window's are those
    that PROJ gives the corner of the grid.

    Args:
        source: where the raster lies.
        shape: rows and columns of the raster.
        grid: the tile's grid.

    Returns:
        The pixels under the grid and up to ``MARGIN`` more on each side. None when the raster does
        not touch the grid, or when its CRS has no coordinates there.
    """
    x, y = _outline_in(source.crs, grid)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    turn = turn_of(source.crs, *grid.centre)
    turns = 0.0
    if turn is not None:
        x = x + turn * np.round((x[0] - x) / turn)  # across the 180th meridian
        left, _, right_end, _ = source.bounds(shape)
        turns = turn * _turns_to((x.min(), x.max()), (left, right_end), turn)
        x = x + turns
    columns = _needed((x - source.transform.c) / source.transform.a, shape[1])
    rows = _needed((y - source.transform.f) / source.transform.e, shape[0])
    if columns is None or rows is None:
        return None
    corner = source.transform @ Affine.translation(columns.start, rows.start)
    corner = Affine.translation(-turns, 0) @ corner
    return Window(rows, columns, Georeference(corner, source.crs))


def is_split(crs: CRS, grid: Grid) -> bool:
    """Whether x of a projection jumps inside a grid, as that of Mercator at the 180th meridian.

    Pixels on both sides of it cannot be resampled together. In degrees they can.
    """
    turn = turn_of(crs, *grid.centre)
    if crs.is_geographic or turn is None:
        return False
    x, _ = _outline_in(crs, grid)
    return bool(np.ptp(x) > turn / 2)


def _outline_in(crs: CRS, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Points along the edges of a grid, from its upper left corner, as x and y of ``crs``."""
    side = grid.cells * CELL
    ramp = np.linspace(0, side, EDGE_POINTS)
    near = np.zeros(EDGE_POINTS)
    far = np.full(EDGE_POINTS, side)
    right = np.concatenate([ramp, far, ramp, near])
    down = np.concatenate([near, ramp, far, ramp])
    x, y = transform(grid.crs, crs, grid.x0 + right, grid.y0 - down)
    return np.asarray(x), np.asarray(y)


def _turns_to(stretch: tuple[float, float], raster: tuple[float, float], turn: float) -> int:
    """By how many turns to move a stretch of x so that it has most in common with a raster."""
    nearest = round((sum(raster) - sum(stretch)) / 2 / turn)
    shared = {}
    for turns in (nearest, nearest - 1, nearest + 1):
        low = max(stretch[0] + turns * turn, raster[0])
        high = min(stretch[1] + turns * turn, raster[1])
        shared[turns] = high - low
    return max(shared, key=shared.__getitem__)


def _needed(positions: np.ndarray, size: int) -> slice | None:
    """The pixels around fractional positions on an axis of ``size`` pixels; None for no pixel."""
    low = positions.min()
    high = positions.max()
    if high <= 1e-6 or low >= size - 1e-6:
        return None
    start = max(int(np.floor(low)) - MARGIN, 0)
    stop = min(int(np.ceil(high)) + MARGIN, size)
    return slice(start, stop)
