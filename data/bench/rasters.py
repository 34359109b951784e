"""A sample's sources as they would lie on a disk, for measuring what reading them costs."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine

from data.tiles.modalities import HR_PIXELS, MODALITIES
from data.tiles.tile import LABEL_PIXELS, Tile

# Pixels a side of a scene and of its blocks. A real scene has 10,980 pixels a side, and a window
# reads such blocks of it.
SCENE = 1024
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")  # 20 m


def write_rasters(tile: Tile, folder: Path) -> None:
    """Write files of the tile's own size.

    A cloud-optimised JPEG of the image with overviews, and a deflated GeoTIFF for each date.
    """
    folder.mkdir(parents=True)
    _write_fine(tile, folder)
    for name in ("ms", "sar"):
        for number, frame in enumerate(_with_nodata(tile, name)):
            path = folder / f"{name}-{number:03d}.tif"
            _write(path, frame, tile, pixels=1, compress="DEFLATE")


def write_scenes(tile: Tile, folder: Path) -> None:
    """Write the same image, but the series as public archives hold them.

    Of each date a scene, Sentinel-2 with a file for each band at its own 10 or 20 m, in deflated
    blocks of 1024 pixels. The tile lies in the middle, mirrored content around it.
    """
    folder.mkdir(parents=True)
    _write_fine(tile, folder)
    for name in ("ms", "sar"):
        for number, frame in enumerate(_with_nodata(tile, name)):
            for index, band in enumerate(MODALITIES[name].bands):
                path = folder / f"{name}-{number:03d}-{index:02d}.tif"
                step = 2 if band in COARSE else 1
                predictor = 2 if name == "ms" else 3
                _write_band(
                    path, frame[index][::step, ::step], tile, step=step, predictor=predictor
                )


def _write_band(path: Path, image: np.ndarray, tile: Tile, *, step: int, predictor: int) -> None:
    """One band of a scene, ``step`` x 10 m a pixel, with mirrored content around the tile."""
    side = SCENE // step
    margin = (side - image.shape[0]) // 2
    scene = np.pad(image, margin, mode="symmetric")
    _write(
        path,
        scene[None],
        tile,
        pixels=1 / step,
        corner=margin,
        compress="DEFLATE",
        predictor=predictor,
        tiled=True,
        blockxsize=side,
        blockysize=side,
    )


def _write_fine(tile: Tile, folder: Path) -> None:
    """High-resolution image and labels."""
    _write(
        folder / "hr.tif",
        tile.arrays["hr"],
        tile,
        pixels=HR_PIXELS,
        driver="COG",
        compress="JPEG",
        quality=95,
        blocksize=512,
    )
    labels = tile.arrays["labels"][None]  # 1 8N 8N
    _write(folder / "labels.tif", labels, tile, pixels=LABEL_PIXELS, compress="DEFLATE")


def _with_nodata(tile: Tile, name: str) -> np.ndarray:
    """A series with the sensor's nodata value where it is invalid: T C N N."""
    array = tile.arrays[name]
    nodata = np.asarray(MODALITIES[name].nodata, array.dtype)
    return np.where(tile.valid[name][:, None], array, nodata)


def _write(
    path: Path,
    bands: np.ndarray,
    tile: Tile,
    *,
    pixels: float,
    corner: int = 0,
    driver: str = "GTiff",
    **options: Any,
) -> None:
    """Write a raster.

    Args:
        path: File to write.
        bands: C H W.
        tile: Says where it lies.
        pixels: Pixels along a cell.
        corner: Pixels from the raster's corner to the tile's.
        driver: GDAL's format.
        options: Of the format.
    """
    scale = Affine.scale(1 / pixels)
    transform = Affine(*tile.transform) * scale * Affine.translation(-corner, -corner)
    count, height, width = bands.shape
    with rasterio.open(
        path,
        "w",
        driver=driver,
        count=count,
        height=height,
        width=width,
        dtype=bands.dtype,
        crs=tile.crs,
        transform=transform,
        **options,
    ) as raster:
        raster.update_tags(corner=corner)
        raster.write(bands)
