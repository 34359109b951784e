"""What the readers of raster files share: places, windows and code masks."""

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

from data.prepare.contract.files import File, need_crs, need_upright, open_raster
from data.prepare.contract.georeference import Georeference
from data.prepare.contract.grid import Grid
from data.prepare.contract.resample import resample_labels
from data.prepare.contract.source import Place
from data.prepare.contract.window import Window

NO_CODE = -1  # in a raster of codes: outside the source


def place_of(dataset: rasterio.DatasetReader, modality: str | None) -> Place:
    """The place of an open raster."""
    return Place(modality, Georeference(dataset.transform, dataset.crs), dataset.shape)


def check_place(dataset: rasterio.DatasetReader, path: File) -> None:
    """Raise InputError unless the raster has upright pixels and a CRS."""
    need_crs(path, dataset.crs)
    need_upright(path, dataset.transform)


def pixels_of(window: Window) -> RasterWindow:
    """The window as rasterio wants it."""
    return RasterWindow.from_slices(window.rows, window.columns)


def codes_on_grid(path: File, grid: Grid, *, pixels: int) -> np.ndarray | None:
    """Codes of a raster's first band on the grid, by nearest neighbour.

    Args:
        path: the raster.
        grid: the tile's grid.
        pixels: pixels along a cell of the grid.

    Returns:
        Codes (h, h) with h = ``grid.cells * pixels``, ``NO_CODE`` outside the raster. None when the
        raster does not touch the grid.
    """
    with open_raster(path) as dataset:
        window = place_of(dataset, None).window(grid)
        if window is None:
            return None
        codes = dataset.read(1, window=pixels_of(window)).astype(np.int32)  # H W
    return resample_labels(codes, window.georeference, grid, pixels=pixels, fill=NO_CODE)
