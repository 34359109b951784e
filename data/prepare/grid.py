"""The 10 m grid of a tile, and the only place that resamples.

Sentinel pixels that already lie on the grid are sliced, not resampled, and so come through bit-equal.
"""

from dataclasses import dataclass

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform, transform_bounds

from data.errors import InputError
from data.tile import HR_PIXELS

CELL = 10.0  # metres
ALIGNED = 0.05  # pixels: what a source may be off and still count as lying on the grid
COVERED = 0.999  # share of a resampled pixel that must come from valid source pixels
WEB_MERCATOR = 3857


@dataclass(frozen=True)
class Grid:
    """``cells`` x ``cells`` ground cells of 10 m from the top-left corner (x0, y0), in a projected CRS in metres."""

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


def metric(crs: CRS) -> bool:
    """Whether ``crs`` is a local projection in metres. Web Mercator is not: its metres stretch with latitude."""
    return crs.is_projected and crs.linear_units_factor[1] == 1.0 and crs.to_epsg() != WEB_MERCATOR


def utm(lon: float, lat: float) -> CRS:
    """The UTM zone of a point (WGS 84)."""
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + min(int((lon + 180) // 6) + 1, 60))


def grid_of_pixels(source: Affine, crs: CRS, shape: tuple[int, int]) -> Grid | None:
    """The grid that 10 m pixels of a metric CRS already form, cut to a square; None for any other raster."""
    height, width = shape
    drift = max(abs(source.a - CELL) * width, abs(source.e + CELL) * height)
    if not metric(crs) or source.b or source.d or drift > ALIGNED * CELL:
        return None
    return Grid(crs, source.c, source.f, min(height, width))


def grid_inside(source: Affine, crs: CRS, shape: tuple[int, int]) -> Grid:
    """The largest square of whole cells inside a raster. A metric CRS is kept and the square is centred; otherwise the
    local UTM zone is taken, with corners on multiples of 10 m as Sentinel-2 pixels have them.

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
        raise InputError(f"the raster covers {right - left:.1f} x {top - bottom:.1f} m: not even one cell of 10 m")
    return Grid(crs, float(x0), float(y0), cells)


def _inner_bounds(crs: CRS, local: CRS, left: float, bottom: float, right: float, top: float) -> tuple[float, ...]:
    """Bounds in ``local`` of the upright rectangle inside the image of a rectangle of ``crs``."""
    ramp = np.linspace(0, 1, 21)
    xs, ys = left + ramp * (right - left), bottom + ramp * (top - bottom)

    def edge(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(transform(crs, local, x, y)[axis])

    return (edge(np.full(21, left), ys, 0).max(), edge(xs, np.full(21, bottom), 1).max(),
            edge(np.full(21, right), ys, 0).min(), edge(xs, np.full(21, top), 1).min())


def resample(array: np.ndarray, valid: np.ndarray, source: Affine, crs: CRS, grid: Grid,
             pixels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A series (T, C, H, W) with its mask (T, H, W) on the grid: (T, C, h, h) of the same type and (T, h, h) bool,
    with h = cells x ``pixels``.

    Aligned pixels are sliced. Finer pixels are averaged over their area, coarser or shifted ones interpolated
    (bilinear). A pixel is valid when all source pixels that contribute are."""
    size, target = grid.cells * pixels, grid.transform(pixels)
    window = _aligned_window(source, crs, array.shape[-2:], grid, target, size)
    if window:
        return array[..., window[0], window[1]].copy(), valid[..., window[0], window[1]].copy()
    method = Resampling.average if _finer(source, crs, array.shape[-2:], grid, target) else Resampling.bilinear
    frames, bands = array.shape[:2]
    clean = np.where(valid[:, None], array, 0).astype(np.float32).reshape(-1, *array.shape[-2:])
    warped = _warp(clean, source, crs, grid.crs, target, size, method).reshape(frames, bands, size, size)
    cover = _warp(valid.astype(np.float32), source, crs, grid.crs, target, size, method)
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        warped = np.clip(np.rint(warped), limits.min, limits.max)
    return warped.astype(array.dtype), cover > COVERED


def resample_labels(labels: np.ndarray, source: Affine, crs: CRS, grid: Grid, pixels: int, fill: int) -> np.ndarray:
    """Class raster (H, W) -> (h, h), nearest neighbour, ``fill`` outside the source."""
    size = grid.cells * pixels
    target = np.full((size, size), fill, labels.dtype)
    reproject(labels, target, src_transform=source, src_crs=crs, dst_transform=grid.transform(pixels),
              dst_crs=grid.crs, resampling=Resampling.nearest, src_nodata=fill, dst_nodata=fill)
    return target


def _warp(bands: np.ndarray, source: Affine, crs: CRS, target_crs: CRS, target: Affine, size: int,
          method: Resampling) -> np.ndarray:
    """(N, H, W) float32 -> (N, size, size) float32, zero outside the source."""
    warped = np.zeros((len(bands), size, size), np.float32)
    reproject(bands, warped, src_transform=source, src_crs=crs, dst_transform=target, dst_crs=target_crs,
              resampling=method)
    return warped


def _finer(source: Affine, crs: CRS, shape: tuple[int, int], grid: Grid, target: Affine) -> bool:
    """Whether the source's pixels are smaller than the target's, measured on the ground at the source's centre."""
    x, y = source.c + source.a * shape[1] / 2, source.f + source.e * shape[0] / 2
    xs, ys = transform(crs, grid.crs, [x, x + source.a], [y, y])
    return np.hypot(xs[1] - xs[0], ys[1] - ys[0]) < target.a * (1 - 1e-3)


def _aligned_window(source: Affine, crs: CRS, shape: tuple[int, int], grid: Grid, target: Affine,
                    size: int) -> tuple[slice, slice] | None:
    """Rows and columns of the source that are the target's pixels, or None when it must be resampled."""
    if crs != grid.crs or source.b or source.d:
        return None
    drift = max(abs(source.a - target.a), abs(source.e - target.e)) / target.a * max(shape)
    column, row = (target.c - source.c) / target.a, (target.f - source.f) / target.e
    if drift > ALIGNED or abs(column - round(column)) > ALIGNED or abs(row - round(row)) > ALIGNED:
        return None
    column, row = round(column), round(row)
    if min(column, row) < 0 or row + size > shape[0] or column + size > shape[1]:
        return None
    return slice(row, row + size), slice(column, column + size)
