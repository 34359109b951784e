"""Small rasters with the tags that archives have, on the pixels of one grid."""

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from data.prepare.place.grid import Grid
from data.prepare.readers.geotiff import GeoTiffImage
from data.tiles.modalities import MODALITIES

UTM = CRS.from_epsg(32631)
LEFT, TOP = 600_000, 5_700_000
CELLS = 4
GRID = Grid(UTM, LEFT, TOP, CELLS)
MS = MODALITIES["ms"].bands
SAR = MODALITIES["sar"].bands


def write(path, array, pixel=10.0, mask=None, colours=None, **options):
    """(C, H, W) from the grid's corner, with tags and names of bands among the ``options``."""
    tags = {key: options.pop(key) for key in ("scales", "offsets", "units") if key in options}
    names = options.pop("names", None)
    text = options.pop("text", {})
    options = {"crs": UTM, "transform": Affine(pixel, 0, LEFT, 0, -pixel, TOP), **options}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(array),
        height=array.shape[1],
        width=array.shape[2],
        dtype=array.dtype,
        **options,
    ) as file:
        file.write(array)
        file.update_tags(**text)
        for key, value in tags.items():
            setattr(file, key, value)
        for number, name in enumerate(names or (), 1):
            file.set_band_description(number, name)
        if colours is not None:
            file.colorinterp = colours
        if mask is not None:
            file.write_mask(mask)
    return path


def image(path, bands, modality="ms", **keys):
    """A reader that was checked."""
    reader = GeoTiffImage(path, tuple(bands), modality=modality, date="2023-05-20", **keys)
    assert not reader.check_keys()
    reader.check()
    return reader


def frame(path, bands, modality="ms", grid=GRID, **keys):
    """Numbers (C, h, h) and mask (h, h) of the one frame that a file gives."""
    frames = image(path, bands, modality, **keys).read(grid)[0]
    return frames.array[0], frames.valid[0]


def flat(count, dtype="uint16", value=1500, size=CELLS):
    """Equal numbers in all pixels of all bands."""
    return np.full((count, size, size), value, dtype)
