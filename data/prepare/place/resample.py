"""The only place that resamples: rasters onto the pixels of a tile's grid.

Sentinel pixels that already lie on the grid are sliced, not resampled, and so come through
bit-equal.
"""

from dataclasses import dataclass

import numpy as np
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import ALIGNED, Grid

COVERED = 0.999  # share of a resampled pixel that must come from valid source pixels


@dataclass(frozen=True)
class _Target:
    """The pixels that are wanted: ``size`` x ``size`` of them."""

    georeference: Georeference
    size: int


def resample(
    array: np.ndarray, valid: np.ndarray, source: Georeference, grid: Grid, *, pixels: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a series and its mask onto the grid.

    Aligned pixels are sliced. Finer pixels are averaged over their area, coarser or shifted ones
    are interpolated (bilinear). What lies outside the source is zero and invalid. A pixel is valid
    when all source pixels that contribute are.

    Args:
        array: series (T, C, H, W).
        valid: mask (T, H, W), bool.
        source: where the series lies.
        grid: the tile's grid.
        pixels: pixels along a cell of the grid.

    Returns:
        The series (T, C, h, h) of the same type and the mask (T, h, h), bool, where h is
        ``grid.cells * pixels``.
    """
    target = _Target(Georeference(grid.transform(pixels), grid.crs), grid.cells * pixels)
    frames, bands, *shape = array.shape
    array = source.flipped(array)
    valid = source.flipped(valid)
    source = source.north_up((shape[0], shape[1]))
    corner = _aligned_corner(source, (shape[0], shape[1]), target.georeference)
    if corner:
        row, column = corner
        window_array = _cut(array, row, column, size=target.size)
        window_valid = _cut(valid, row, column, size=target.size)
        return window_array, window_valid
    method = Resampling.bilinear
    if _is_finer(source, (shape[0], shape[1]), target.georeference):
        method = Resampling.average
    clean = np.where(valid[:, None], array, 0).astype(np.float32).reshape(-1, *shape)  # TC H W
    warped = _warp(clean, source, target, method)  # TC h h
    warped = warped.reshape(frames, bands, target.size, target.size)  # T C h h
    cover = _warp(valid.astype(np.float32), source, target, method)  # T h h
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        warped = np.clip(np.rint(warped), limits.min, limits.max)
    return warped.astype(array.dtype), cover > COVERED


def resample_labels(
    labels: np.ndarray, source: Georeference, grid: Grid, *, pixels: int, fill: int
) -> np.ndarray:
    """Bring a class raster (H, W) onto the grid by nearest neighbour.

    Args:
        labels: class codes (H, W).
        source: where they lie.
        grid: the tile's grid.
        pixels: pixels along a cell of the grid.
        fill: the code of no label; pixels outside the source get it.

    Returns:
        Class codes (h, h) with h = ``grid.cells * pixels``.
    """
    size = grid.cells * pixels
    target = np.full((size, size), fill, labels.dtype)
    reproject(
        labels,
        target,
        src_transform=source.transform,
        src_crs=source.crs,
        dst_transform=grid.transform(pixels),
        dst_crs=grid.crs,
        resampling=Resampling.nearest,
        src_nodata=fill,
        dst_nodata=fill,
    )
    return target


def _warp(
    bands: np.ndarray, source: Georeference, target: _Target, method: Resampling
) -> np.ndarray:
    """(N, H, W) float32 -> (N, h, h) float32, zero outside the source."""
    warped = np.zeros((len(bands), target.size, target.size), np.float32)
    reproject(
        bands,
        warped,
        src_transform=source.transform,
        src_crs=source.crs,
        dst_transform=target.georeference.transform,
        dst_crs=target.georeference.crs,
        resampling=method,
    )
    return warped


def _is_finer(source: Georeference, shape: tuple[int, int], target: Georeference) -> bool:
    """Whether source pixels are smaller than target pixels on the ground at the source's centre."""
    pixel = source.transform
    x = pixel.c + pixel.a * shape[1] / 2
    y = pixel.f + pixel.e * shape[0] / 2
    xs, ys = transform(source.crs, target.crs, [x, x + pixel.a], [y, y])
    return np.hypot(xs[1] - xs[0], ys[1] - ys[0]) < target.transform.a * (1 - 1e-3)


def _aligned_corner(
    source: Georeference, shape: tuple[int, int], target: Georeference
) -> tuple[int, int] | None:
    """The source's row and column at which the target begins; None if pixels do not coincide."""
    own = source.transform
    wanted = target.transform
    if source.crs != target.crs:
        return None
    drift = max(abs(own.a - wanted.a), abs(own.e - wanted.e)) / wanted.a * max(shape)
    column = (wanted.c - own.c) / wanted.a
    row = (wanted.f - own.f) / wanted.e
    if drift > ALIGNED or abs(column - round(column)) > ALIGNED or abs(row - round(row)) > ALIGNED:
        return None
    return round(row), round(column)


def _cut(array: np.ndarray, row: int, column: int, *, size: int) -> np.ndarray:
    """(..., H, W) -> (..., size, size) from a corner that may lie outside; zero outside."""
    cut = np.zeros((*array.shape[:-2], size, size), array.dtype)
    top = max(row, 0)
    left = max(column, 0)
    inside = array[..., top : max(row + size, 0), left : max(column + size, 0)]
    height, width = inside.shape[-2:]
    cut[..., top - row : top - row + height, left - column : left - column + width] = inside
    return cut
