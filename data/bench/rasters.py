"""A sample's sources as they would lie on a disk, for measuring what reading them costs."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine

from data.tiles.modalities import HR_PIXELS, MODALITIES
from data.tiles.tile import LABEL_PIXELS, Tile

# pixels of a scene's side and block; a real scene has 10,980, of which a window reads such blocks
# too
SCENE = 1024
COARSE = ("B05", "B06", "B07", "B8A", "B11", "B12")  # 20 m


def write_rasters(tile: Tile, folder: Path) -> None:
    """Files of the tile's own size: a cloud-optimised JPEG of the image with overviews, a deflated
    GeoTIFF a date."""
    folder.mkdir(parents=True)
    _write_fine(tile, folder)
    for name in ("ms", "sar"):
        for number, frame in enumerate(_with_nodata(tile, name)):
            _write(folder / f"{name}-{number:03d}.tif", frame, tile, 1, compress="DEFLATE")


def write_scenes(tile: Tile, folder: Path) -> None:
    """The same image, but the series as public archives hold them: of each date a scene, Sentinel-2
    a file a band at its own 10 or 20 m, in deflated blocks of 1024 pixels. The tile lies in the
    middle, mirrored content around it."""
    folder.mkdir(parents=True)
    _write_fine(tile, folder)
    for name in ("ms", "sar"):
        for number, frame in enumerate(_with_nodata(tile, name)):
            for index, band in enumerate(MODALITIES[name].bands):
                step = 2 if band in COARSE else 1
                image = frame[index][::step, ::step]
                side = SCENE // step
                margin = (side - image.shape[0]) // 2
                scene = np.pad(image, margin, mode="symmetric")
                _write(
                    folder / f"{name}-{number:03d}-{index:02d}.tif",
                    scene[None],
                    tile,
                    1 / step,
                    margin,
                    compress="DEFLATE",
                    predictor=2 if name == "ms" else 3,
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
        HR_PIXELS,
        driver="COG",
        compress="JPEG",
        quality=95,
        blocksize=512,
    )
    _write(
        folder / "labels.tif", tile.arrays["labels"][None], tile, LABEL_PIXELS, compress="DEFLATE"
    )


def _with_nodata(tile: Tile, name: str) -> np.ndarray:
    """A series with the sensor's nodata value where it is invalid: T C N N."""
    array = tile.arrays[name]
    return np.where(
        tile.valid[name][:, None], array, np.asarray(MODALITIES[name].nodata, array.dtype)
    )


def _write(
    path: Path, bands: np.ndarray, tile: Tile, pixels: float, corner: int = 0, **options
) -> None:
    """C H W -> a GeoTIFF with ``pixels`` pixels along a cell, whose tile begins ``corner`` pixels
    from its corner."""
    transform = (
        Affine(*tile.transform) * Affine.scale(1 / pixels) * Affine.translation(-corner, -corner)
    )
    options = {
        "driver": "GTiff",
        **options,
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype,
        "crs": tile.crs,
        "transform": transform,
    }
    with rasterio.open(path, "w", **options) as raster:
        raster.update_tags(corner=corner)
        raster.write(bands)
