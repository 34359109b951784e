"""The 10 m grid of a tile, and the ways to choose one."""

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.warp import transform

from data.errors import InputError
from data.prepare.place.georeference import Georeference, has_place
from data.prepare.place.projection import is_true_metric, local_crs, to_degrees
from data.tiles.longitudes import wrapped

CELL = 10.0  # metres
ALIGNED = 0.05  # pixels that a source may be off and still count as lying on the grid
MOST_CELLS = 1024  # along a tile: 10 km, whose high-resolution image is 3 GB
RAMP_POINTS = 21  # along each edge of a rectangle that is bent into another CRS


@dataclass(frozen=True)
class Grid:
    """``cells`` x ``cells`` ground cells of 10 m in a projected CRS in metres, or ``NOWHERE``."""

    crs: CRS
    x0: float  # left edge
    y0: float  # top edge
    cells: int

    def transform(self, pixels: int = 1) -> Affine:
        """Affine of the raster with ``pixels`` pixels along a cell."""
        return Affine(CELL / pixels, 0, self.x0, 0, -CELL / pixels, self.y0)

    @property
    def bounds(self) -> BoundingBox:
        """Bounds in metres of ``crs``."""
        side = self.cells * CELL
        return BoundingBox(self.x0, self.y0 - side, self.x0 + side, self.y0)

    @property
    def has_place(self) -> bool:
        """Whether it is known where on Earth the cells lie."""
        return has_place(self.crs)

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude (-180 to 180) and latitude of the centre in degrees; it must have a place."""
        half = self.cells * CELL / 2
        (lon,), (lat,) = transform(self.crs, "EPSG:4326", [self.x0 + half], [self.y0 - half])
        return wrapped(lon), lat


@dataclass(frozen=True)
class Lattice:
    """Where the cells of all tiles of a CRS could lie: on multiples of 10 m from a corner."""

    crs: CRS
    x: float = 0.0  # of a corner, in ``crs``
    y: float = 0.0


def grid_of_pixels(source: Georeference, shape: tuple[int, int]) -> Grid | None:
    """The grid that 10 m pixels already form, cut to a square.

    Args:
        source: where the raster lies.
        shape: rows and columns of the raster.

    Returns:
        The grid, or None for any raster but one of 10 m pixels that are 10 m on the ground.
    """
    height, width = shape
    upright = source.north_up(shape)
    pixel = upright.transform
    drift = max(abs(pixel.a - CELL) * width, abs(pixel.e + CELL) * height)
    if drift > ALIGNED * CELL or not is_true_metric(source.crs, *source.centre(shape)):
        return None
    return Grid(source.crs, pixel.c, pixel.f, min(height, width))


def grid_inside(source: Georeference, shape: tuple[int, int]) -> Grid:
    """The largest square of whole cells inside a raster.

    A CRS in metres on the ground is kept and the square is centred. Otherwise the local zone is
    taken, with corners on multiples of 10 m as Sentinel-2 pixels have them.

    Args:
        source: where the raster lies.
        shape: rows and columns of the raster.

    Raises:
        InputError: not even one cell fits, or the raster leaves the local zone.
    """
    bounds = source.bounds(shape)
    x, y = source.centre(shape)
    if is_true_metric(source.crs, x, y):
        # The slack makes a side of 59.9999999 m count as one of 60 m.
        grid = _centred_grid(bounds, source.crs, slack=ALIGNED * abs(source.transform.a))
        width = bounds.right - bounds.left
        height = bounds.top - bounds.bottom
    else:
        lattice = Lattice(local_crs(*to_degrees(source.crs).transform(x, y)))
        edges = edges_in(bounds, source.crs, lattice.crs)
        grid = _upright_grid(edges, lattice)
        turned = _grid_around_middle(edges, lattice)
        if turned.cells > grid.cells:
            grid = turned
        width, height = np.ptp(edges.reshape(-1, 2), axis=0)
    if grid.cells < 1:
        raise InputError(
            f"the raster covers {width:.1f} x {height:.1f} m: not even one cell of 10 m"
        )
    return grid


def _centred_grid(bounds: BoundingBox, crs: CRS, *, slack: float) -> Grid:
    """The largest grid in the middle of ``bounds``, which may be ``slack`` metres larger."""
    left, bottom, right, top = bounds
    cells = int((min(right - left, top - bottom) + slack) // CELL)
    x0 = left + (right - left - cells * CELL) / 2
    y0 = top - (top - bottom - cells * CELL) / 2
    return Grid(crs, float(x0), float(y0), cells)


def grid_at(lon: float, lat: float, *, cells: int, lattice: Lattice | None = None) -> Grid:
    """``cells`` x ``cells`` cells around a point in degrees.

    Args:
        lon: degrees, of any winding.
        lat: degrees.
        cells: along a side.
        lattice: where the cells lie; default: corners on multiples of 10 m in the local zone.

    Returns:
        The grid. Its centre is the point to within 5 m along each axis.
    """
    if lattice is None:
        lattice = Lattice(local_crs(lon, lat))
    (x,), (y,) = transform("EPSG:4326", lattice.crs, [lon], [lat])
    half = cells * CELL / 2
    x0 = _nearest(x - half, lattice.x)
    y0 = _nearest(y + half, lattice.y)
    return Grid(lattice.crs, x0, y0, cells)


def grid_over(bounds: BoundingBox, lattice: Lattice) -> Grid:
    """The smallest square of whole cells of ``lattice`` that encloses ``bounds``.

    The shorter side is extended on both ends. Bounds within 0.05 cell of a cell's edge count as
    lying on it.
    """
    slack = ALIGNED * CELL
    first_column = np.floor((bounds.left - lattice.x + slack) / CELL)  # counted in cells
    last_column = np.ceil((bounds.right - lattice.x - slack) / CELL)
    first_row = np.floor((bounds.bottom - lattice.y + slack) / CELL)
    last_row = np.ceil((bounds.top - lattice.y - slack) / CELL)
    cells = int(max(last_column - first_column, last_row - first_row, 1))
    x0 = first_column - (cells - (last_column - first_column)) // 2
    y0 = last_row + (cells - (last_row - first_row)) // 2
    return Grid(lattice.crs, float(x0 * CELL + lattice.x), float(y0 * CELL + lattice.y), cells)


def _nearest(metres: float, corner: float) -> float:
    """The edge of a cell nearest to a coordinate; another one lies at ``corner``."""
    return float(round((metres - corner) / CELL) * CELL + corner)


def edges_in(bounds: BoundingBox, crs: CRS, local: CRS) -> np.ndarray:
    """The left, top, right and bottom edge of a rectangle of ``crs`` as points (4, n, 2) of
    ``local``, clockwise.

    Raises:
        InputError: a point has no coordinates there.
    """
    ramp = np.linspace(0, 1, RAMP_POINTS)
    along_x = bounds.left + ramp * (bounds.right - bounds.left)
    along_y = bounds.bottom + ramp * (bounds.top - bounds.bottom)
    left = np.full(RAMP_POINTS, bounds.left)
    right = np.full(RAMP_POINTS, bounds.right)
    bottom = np.full(RAMP_POINTS, bounds.bottom)
    top = np.full(RAMP_POINTS, bounds.top)
    x = np.concatenate([left, along_x, right, along_x[::-1]])
    y = np.concatenate([along_y, top, along_y[::-1], bottom])
    points = np.column_stack(transform(crs, local, x, y))
    if not np.isfinite(points).all():
        raise InputError(
            f"the raster leaves the zone of its middle, EPSG:{local.to_epsg()}; say which part "
            "with 'centre' and 'cells', or with 'footprint'"
        )
    return points.reshape(4, RAMP_POINTS, 2)


def _upright_grid(edges: np.ndarray, lattice: Lattice) -> Grid:
    """The largest grid at the upper left of an upright rectangle inside the edges (4, n, 2)."""
    left, top, right, bottom = edges
    x0 = np.ceil(left[:, 0].max() / CELL - 1e-6) * CELL
    y0 = np.floor(top[:, 1].min() / CELL + 1e-6) * CELL
    cells = int(min(right[:, 0].min() - x0, y0 - bottom[:, 1].max()) // CELL)
    return Grid(lattice.crs, float(x0), float(y0), cells)


def _grid_around_middle(edges: np.ndarray, lattice: Lattice) -> Grid:
    """The largest grid around the middle of the edges (4, n, 2) that lies inside them.

    For a raster that is turned against the local zone, as it is near the poles.
    """
    outline = shapely.Polygon(edges.reshape(-1, 2))
    x, y = edges.reshape(-1, 2).mean(axis=0)
    fits = Grid(lattice.crs, float(x), float(y), 0)
    most = 2 * MOST_CELLS  # more than a tile may have, so that it is told
    while most - fits.cells > 1:
        cells = (fits.cells + most) // 2
        half = cells * CELL / 2
        tried = Grid(lattice.crs, _nearest(x - half, 0), _nearest(y + half, 0), cells)
        if outline.is_valid and outline.contains(shapely.box(*tried.bounds)):
            fits = tried
        else:
            most = cells
    return fits
