"""The 10 m grid of a tile, and the ways to choose one."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from affine import Affine
from pyproj import Transformer
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.warp import transform, transform_bounds

from data.errors import InputError
from data.prepare.contract.georeference import Georeference

CELL = 10.0  # metres
ALIGNED = 0.05  # pixels that a source may be off and still count as lying on the grid
WEB_MERCATOR = 3857
MOST_CELLS = 1024  # along a tile: 10 km, whose high-resolution image is 3 GB
RAMP_POINTS = 21  # along each edge of a rectangle that is bent into another CRS


@dataclass(frozen=True)
class Grid:
    """``cells`` x ``cells`` ground cells of 10 m in a projected CRS in metres."""

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
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the centre in degrees."""
        half = self.cells * CELL / 2
        (lon,), (lat,) = transform(self.crs, "EPSG:4326", [self.x0 + half], [self.y0 - half])
        return lon, lat


def is_metric(crs: CRS) -> bool:
    """Whether ``crs`` is a local projection in metres.

    Web Mercator is none: its metres stretch with latitude.
    """
    return crs.is_projected and crs.linear_units_factor[1] == 1.0 and crs.to_epsg() != WEB_MERCATOR


def utm(lon: float, lat: float) -> CRS:
    """The UTM zone (WGS 84) of a point in degrees."""
    zone = min(int((lon + 180) // 6) + 1, 60)
    if lat >= 0:
        return CRS.from_epsg(32600 + zone)
    return CRS.from_epsg(32700 + zone)


@cache
def _to_degrees(crs: CRS) -> Transformer:
    return Transformer.from_crs(crs.to_wkt(), "OGC:CRS84", always_xy=True)


def is_on_earth(crs: CRS, bounds: BoundingBox) -> bool:
    """Whether all corners of ``bounds`` have a longitude and a latitude.

    False where coordinates and CRS do not belong together, such as metres in a CRS in degrees.
    Later steps would fail on them with an error of PROJ.
    """
    x = [bounds.left, bounds.right, bounds.left, bounds.right]
    y = [bounds.bottom, bounds.bottom, bounds.top, bounds.top]
    lon, lat = _to_degrees(crs).transform(x, y)
    possible_lon = np.isfinite(lon).all() and (np.abs(lon) <= 360.001).all()
    return bool(possible_lon and (np.abs(lat) <= 90.001).all())


def grid_of_pixels(source: Georeference, shape: tuple[int, int]) -> Grid | None:
    """The grid that 10 m pixels already form, cut to a square.

    Args:
        source: where the raster lies.
        shape: rows and columns of the raster.

    Returns:
        The grid, or None for any raster but one of 10 m pixels in a metric CRS.
    """
    height, width = shape
    pixel = source.transform
    drift = max(abs(pixel.a - CELL) * width, abs(pixel.e + CELL) * height)
    if not is_metric(source.crs) or pixel.b or pixel.d or drift > ALIGNED * CELL:
        return None
    return Grid(source.crs, pixel.c, pixel.f, min(height, width))


def grid_inside(source: Georeference, shape: tuple[int, int]) -> Grid:
    """The largest square of whole cells inside a raster.

    A metric CRS is kept and the square is centred. Otherwise the local UTM zone is taken, with
    corners on multiples of 10 m as Sentinel-2 pixels have them.

    Args:
        source: where the raster lies.
        shape: rows and columns of the raster.

    Raises:
        InputError: not even one cell fits.
    """
    bounds = source.bounds(shape)
    if is_metric(source.crs):
        # The slack makes a side of 59.9999999 m count as one of 60 m.
        grid = _centred_grid(bounds, source.crs, slack=ALIGNED * abs(source.transform.a))
    else:
        west, south, east, north = transform_bounds(source.crs, "EPSG:4326", *bounds)
        local = utm((west + east) / 2, (south + north) / 2)
        bounds = _inner_bounds(bounds, source.crs, local)
        grid = _snapped_grid(bounds, local)
    if grid.cells < 1:
        raise InputError(
            f"the raster covers {bounds.right - bounds.left:.1f} x "
            f"{bounds.top - bounds.bottom:.1f} m: not even one cell of 10 m"
        )
    return grid


def _centred_grid(bounds: BoundingBox, crs: CRS, *, slack: float) -> Grid:
    """The largest grid in the middle of ``bounds``, which may be ``slack`` metres larger."""
    left, bottom, right, top = bounds
    cells = int((min(right - left, top - bottom) + slack) // CELL)
    x0 = left + (right - left - cells * CELL) / 2
    y0 = top - (top - bottom - cells * CELL) / 2
    return Grid(crs, float(x0), float(y0), cells)


def _snapped_grid(bounds: BoundingBox, crs: CRS) -> Grid:
    """The largest grid inside ``bounds`` whose corner lies on multiples of 10 m."""
    x0 = np.ceil(bounds.left / CELL - 1e-6) * CELL
    y0 = np.floor(bounds.top / CELL + 1e-6) * CELL
    cells = int(min(bounds.right - x0, y0 - bounds.bottom) // CELL)
    return Grid(crs, float(x0), float(y0), cells)


def grid_at(lon: float, lat: float, *, cells: int) -> Grid:
    """``cells`` x ``cells`` cells around a point in degrees.

    The grid is in the UTM zone of the point, with corners on multiples of 10 m. So its centre is
    the point to within 5 m along each axis.
    """
    crs = utm(lon, lat)
    (x,), (y,) = transform("EPSG:4326", crs, [lon], [lat])
    half = cells * CELL / 2
    return Grid(crs, _round_to_cell(x - half), _round_to_cell(y + half), cells)


def grid_over(bounds: BoundingBox, crs: CRS) -> Grid:
    """The smallest square of whole cells that encloses ``bounds``, corners on multiples of 10 m.

    The shorter side is extended on both ends. Bounds within 0.05 cell of a multiple count as
    lying on it.
    """
    slack = ALIGNED * CELL
    first_column = np.floor((bounds.left + slack) / CELL)  # counted in cells from the CRS's origin
    last_column = np.ceil((bounds.right - slack) / CELL)
    first_row = np.floor((bounds.bottom + slack) / CELL)
    last_row = np.ceil((bounds.top - slack) / CELL)
    cells = int(max(last_column - first_column, last_row - first_row, 1))
    x0 = first_column - (cells - (last_column - first_column)) // 2
    y0 = last_row + (cells - (last_row - first_row)) // 2
    return Grid(crs, float(x0 * CELL), float(y0 * CELL), cells)


def _round_to_cell(metres: float) -> float:
    return float(round(metres / CELL) * CELL)


def _inner_bounds(bounds: BoundingBox, crs: CRS, local: CRS) -> BoundingBox:
    """The upright rectangle in ``local`` that lies inside a rectangle of ``crs``."""
    ramp = np.linspace(0, 1, RAMP_POINTS)
    along_x = bounds.left + ramp * (bounds.right - bounds.left)
    along_y = bounds.bottom + ramp * (bounds.top - bounds.bottom)
    left, _ = transform(crs, local, np.full(RAMP_POINTS, bounds.left), along_y)
    right, _ = transform(crs, local, np.full(RAMP_POINTS, bounds.right), along_y)
    _, bottom = transform(crs, local, along_x, np.full(RAMP_POINTS, bounds.bottom))
    _, top = transform(crs, local, along_x, np.full(RAMP_POINTS, bounds.top))
    return BoundingBox(np.max(left), np.max(bottom), np.min(right), np.min(top))
