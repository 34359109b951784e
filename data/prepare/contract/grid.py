"""The 10 m grid of a tile, and the only place that resamples.

Sentinel pixels that already lie on the grid are sliced, not resampled, and so come through
bit-equal.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform, transform_bounds

from data.errors import InputError

CELL = 10.0  # metres
ALIGNED = 0.05  # pixels: what a source may be off and still count as lying on the grid
COVERED = 0.999  # share of a resampled pixel that must come from valid source pixels
WEB_MERCATOR = 3857
MOST_CELLS = 1024  # along a tile: 10 km, whose high-resolution image is 3 GB
# source pixels around a window: bilinear looks one pixel out, and the warper's coordinates are
# approximate
MARGIN = 2
EDGE = 21  # points along an edge when a square is bent into another CRS


@dataclass(frozen=True)
class Grid:
    """``cells`` x ``cells`` ground cells of 10 m from the top-left corner (x0, y0), in a projected
    CRS in metres."""

    crs: CRS
    x0: float
    y0: float
    cells: int

    def transform(self, pixels: int = 1) -> Affine:
        """Affine of the raster with ``pixels`` pixels along a cell."""
        return Affine(CELL / pixels, 0, self.x0, 0, -CELL / pixels, self.y0)

    @property
    def centre(self) -> tuple[float, float]:
        """Lon, lat in degrees of the centre."""
        half = self.cells * CELL / 2
        (lon,), (lat,) = transform(self.crs, "EPSG:4326", [self.x0 + half], [self.y0 - half])
        return lon, lat


@dataclass(frozen=True)
class Window:
    """Whole pixels of a raster, and where their upper left corner puts them."""

    rows: slice
    columns: slice
    transform: Affine

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def metric(crs: CRS) -> bool:
    """Whether ``crs`` is a local projection in metres. Web Mercator is not: its metres stretch with
    latitude."""
    return crs.is_projected and crs.linear_units_factor[1] == 1.0 and crs.to_epsg() != WEB_MERCATOR


def utm(lon: float, lat: float) -> CRS:
    """The UTM zone of a point (WGS 84)."""
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + min(int((lon + 180) // 6) + 1, 60))


@cache
def _to_degrees(crs: CRS) -> Transformer:
    return Transformer.from_crs(crs.to_wkt(), "OGC:CRS84", always_xy=True)


def on_earth(crs: CRS, left: float, bottom: float, right: float, top: float) -> bool:
    """Whether the corners of bounds have a longitude and latitude. False where coordinates and CRS
    do not belong together, such as metres in degrees; later steps would fail on them with an error
    of PROJ."""
    lon, lat = _to_degrees(crs).transform([left, right, left, right], [bottom, bottom, top, top])
    return bool(
        np.isfinite(lon).all() and (np.abs(lon) <= 360.001).all() and (np.abs(lat) <= 90.001).all()
    )


def grid_of_pixels(source: Affine, crs: CRS, shape: tuple[int, int]) -> Grid | None:
    """The grid that 10 m pixels of a metric CRS already form, cut to a square; None for any other
    raster."""
    height, width = shape
    drift = max(abs(source.a - CELL) * width, abs(source.e + CELL) * height)
    if not metric(crs) or source.b or source.d or drift > ALIGNED * CELL:
        return None
    return Grid(crs, source.c, source.f, min(height, width))


def grid_inside(source: Affine, crs: CRS, shape: tuple[int, int]) -> Grid:
    """The largest square of whole cells inside a raster. A metric CRS is kept and the square is
    centred; otherwise the local UTM zone is taken, with corners on multiples of 10 m as Sentinel-2
    pixels have them.

    Raises InputError when not even one cell fits."""
    height, width = shape
    left, top = source.c, source.f
    right, bottom = left + source.a * width, top + source.e * height
    slack = ALIGNED * abs(source.a)  # a footprint of 59.9999999 m is one of 60 m
    if metric(crs):
        cells = int((min(right - left, top - bottom) + slack) // CELL)
        x0 = left + (right - left - cells * CELL) / 2
        y0 = top - (top - bottom - cells * CELL) / 2
    else:
        west, south, east, north = transform_bounds(crs, "EPSG:4326", left, bottom, right, top)
        local = utm((west + east) / 2, (south + north) / 2)
        left, bottom, right, top = _inner_bounds(crs, local, left, bottom, right, top)
        x0, y0 = np.ceil(left / CELL - 1e-6) * CELL, np.floor(top / CELL + 1e-6) * CELL
        cells, crs = int(min(right - x0, y0 - bottom) // CELL), local
    if cells < 1:
        raise InputError(
            f"the raster covers {right - left:.1f} x {top - bottom:.1f} m: not even one cell of 10 m"
        )
    return Grid(crs, float(x0), float(y0), cells)


def grid_at(lon: float, lat: float, cells: int) -> Grid:
    """``cells`` x ``cells`` cells around a point in degrees: its UTM zone, corners on multiples of
    10 m, so the centre is the point to within 5 m along each axis."""
    crs = utm(lon, lat)
    (x,), (y,) = transform("EPSG:4326", crs, [lon], [lat])
    return Grid(crs, _snapped(x - cells * CELL / 2), _snapped(y + cells * CELL / 2), cells)


def grid_over(left: float, bottom: float, right: float, top: float, crs: CRS) -> Grid:
    """The smallest square of whole cells that encloses bounds in a metric CRS, corners on multiples
    of 10 m; the shorter side is extended on both ends. Bounds within 0.05 cell of a multiple count
    as on it."""
    slack = ALIGNED * CELL
    x0, x1 = np.floor((left + slack) / CELL), np.ceil((right - slack) / CELL)  # in cells
    y0, y1 = np.floor((bottom + slack) / CELL), np.ceil((top - slack) / CELL)
    cells = int(max(x1 - x0, y1 - y0, 1))
    x0, y1 = x0 - (cells - (x1 - x0)) // 2, y1 + (cells - (y1 - y0)) // 2
    return Grid(crs, float(x0 * CELL), float(y1 * CELL), cells)


def _snapped(metres: float) -> float:
    return float(round(metres / CELL) * CELL)


def window_of(source: Affine, crs: CRS, shape: tuple[int, int], grid: Grid) -> Window | None:
    """The pixels of a north-up raster that resampling onto ``grid`` needs: those under it and
    MARGIN more, as far as there are any. None when the raster does not touch the grid, or its CRS
    has no coordinates there."""
    ramp = np.linspace(0, grid.cells * CELL, EDGE)
    near, far = np.zeros(EDGE), np.full(EDGE, grid.cells * CELL)
    right, down = np.concatenate([ramp, far, ramp, near]), np.concatenate([near, ramp, far, ramp])
    xs, ys = (
        np.asarray(axis) for axis in transform(grid.crs, crs, grid.x0 + right, grid.y0 - down)
    )
    if not (np.isfinite(xs).all() and np.isfinite(ys).all()):
        return None
    columns = _needed((xs - source.c) / source.a, shape[1])
    rows = _needed((ys - source.f) / source.e, shape[0])
    if columns is None or rows is None:
        return None
    return Window(rows, columns, source @ Affine.translation(columns.start, rows.start))


def _needed(positions: np.ndarray, size: int) -> slice | None:
    """Fractional pixel positions along an axis -> the pixels there are around them, or None."""
    low, high = positions.min(), positions.max()
    if high <= 1e-6 or low >= size - 1e-6:
        return None
    return slice(max(int(np.floor(low)) - MARGIN, 0), min(int(np.ceil(high)) + MARGIN, size))


def _inner_bounds(
    crs: CRS, local: CRS, left: float, bottom: float, right: float, top: float
) -> tuple[float, ...]:
    """Bounds in ``local`` of the upright rectangle inside the image of a rectangle of ``crs``."""
    ramp = np.linspace(0, 1, 21)
    xs, ys = left + ramp * (right - left), bottom + ramp * (top - bottom)

    def edge(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(transform(crs, local, x, y)[axis])

    return (
        edge(np.full(21, left), ys, 0).max(),
        edge(xs, np.full(21, bottom), 1).max(),
        edge(np.full(21, right), ys, 0).min(),
        edge(xs, np.full(21, top), 1).min(),
    )


def resample(
    array: np.ndarray, valid: np.ndarray, source: Affine, crs: CRS, grid: Grid, pixels: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """A series (T, C, H, W) with its mask (T, H, W) on the grid: (T, C, h, h) of the same type and
    (T, h, h) bool, with h = cells x ``pixels``.

    Aligned pixels are sliced; what lies outside the source is zero and invalid. Finer pixels are
    averaged over their area, coarser or shifted ones interpolated (bilinear). A pixel is valid when
    all source pixels that contribute are."""
    size, target = grid.cells * pixels, grid.transform(pixels)
    corner = _aligned_corner(source, crs, array.shape[-2:], grid, target)
    if corner:
        return _cut(array, *corner, size), _cut(valid, *corner, size)
    method = (
        Resampling.average
        if _finer(source, crs, array.shape[-2:], grid, target)
        else Resampling.bilinear
    )
    frames, bands = array.shape[:2]
    clean = np.where(valid[:, None], array, 0).astype(np.float32).reshape(-1, *array.shape[-2:])
    warped = _warp(clean, source, crs, grid.crs, target, size, method).reshape(
        frames, bands, size, size
    )
    cover = _warp(valid.astype(np.float32), source, crs, grid.crs, target, size, method)
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        warped = np.clip(np.rint(warped), limits.min, limits.max)
    return warped.astype(array.dtype), cover > COVERED


def resample_labels(
    labels: np.ndarray, source: Affine, crs: CRS, grid: Grid, pixels: int, fill: int
) -> np.ndarray:
    """Class raster (H, W) -> (h, h), nearest neighbour, ``fill`` outside the source."""
    size = grid.cells * pixels
    target = np.full((size, size), fill, labels.dtype)
    reproject(
        labels,
        target,
        src_transform=source,
        src_crs=crs,
        dst_transform=grid.transform(pixels),
        dst_crs=grid.crs,
        resampling=Resampling.nearest,
        src_nodata=fill,
        dst_nodata=fill,
    )
    return target


def _warp(
    bands: np.ndarray,
    source: Affine,
    crs: CRS,
    target_crs: CRS,
    target: Affine,
    size: int,
    method: Resampling,
) -> np.ndarray:
    """(N, H, W) float32 -> (N, size, size) float32, zero outside the source."""
    warped = np.zeros((len(bands), size, size), np.float32)
    reproject(
        bands,
        warped,
        src_transform=source,
        src_crs=crs,
        dst_transform=target,
        dst_crs=target_crs,
        resampling=method,
    )
    return warped


def _finer(source: Affine, crs: CRS, shape: tuple[int, int], grid: Grid, target: Affine) -> bool:
    """Whether the source's pixels are smaller than the target's, measured on the ground at the
    source's centre."""
    x, y = source.c + source.a * shape[1] / 2, source.f + source.e * shape[0] / 2
    xs, ys = transform(crs, grid.crs, [x, x + source.a], [y, y])
    return np.hypot(xs[1] - xs[0], ys[1] - ys[0]) < target.a * (1 - 1e-3)


def _aligned_corner(
    source: Affine, crs: CRS, shape: tuple[int, int], grid: Grid, target: Affine
) -> tuple[int, int] | None:
    """Row and column of the source at which the target begins, or None when pixels do not fall on
    pixels."""
    if crs != grid.crs or source.b or source.d:
        return None
    drift = max(abs(source.a - target.a), abs(source.e - target.e)) / target.a * max(shape)
    column, row = (target.c - source.c) / target.a, (target.f - source.f) / target.e
    if drift > ALIGNED or abs(column - round(column)) > ALIGNED or abs(row - round(row)) > ALIGNED:
        return None
    return round(row), round(column)


def _cut(array: np.ndarray, row: int, column: int, size: int) -> np.ndarray:
    """(..., H, W) -> (..., size, size) from a corner that may lie outside; zero where there is
    nothing to cut."""
    cut = np.zeros((*array.shape[:-2], size, size), array.dtype)
    top, left = max(row, 0), max(column, 0)
    part = array[..., top : max(row + size, 0), left : max(column + size, 0)]
    cut[
        ..., top - row : top - row + part.shape[-2], left - column : left - column + part.shape[-1]
    ] = part
    return cut
