"""Label rasters: a code a pixel, and a table that says which class a code is."""

from dataclasses import dataclass

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.grid import Grid, resample_labels
from data.prepare.contract.source import (
    File,
    Place,
    need_crs,
    need_north_up,
    open_raster,
    pixels_of,
    usable,
)
from data.suggest import did_you_mean
from data.tiles.classes import CODES, INDEX
from data.tiles.tile import LABEL_PIXELS, UNLABELLED


@dataclass(frozen=True)
class GeoTiffLabels:
    """A mask of pixel codes. ``legend`` names a code table of data/tiles/classes.py, or is one:
    {"code": "class name"}. ``like``: a raster of the same pixels whose georeference stands in when
    the mask's own CRS is broken."""

    path: File
    legend: str | dict
    like: File | None = None

    def check(self) -> None:
        """One integer band, a sound legend, a usable CRS from the mask or from ``like``."""
        code_table(self.legend, self.path)
        with open_raster(self.path) as dataset:
            if dataset.count != 1 or not np.issubdtype(dataset.dtypes[0], np.integer):
                raise InputError(
                    f"{self.path}: expected one band of integer codes, found {dataset.count} of "
                    f"{dataset.dtypes[0]}"
                )
            need_north_up(self.path, self._place(dataset).transform)

    def place(self) -> Place:
        """The mask's pixels."""
        with open_raster(self.path) as dataset:
            return self._place(dataset)

    def read(self, grid: Grid) -> list["RasterLabels"]:
        """One RasterLabels."""
        with open_raster(self.path) as dataset:
            place = self._place(dataset)
            window = place.window(grid)
            if window is None:
                return []
            codes = dataset.read(1, window=pixels_of(window))
        classes = map_codes(codes, code_table(self.legend, self.path))
        return [RasterLabels(classes, window.transform, place.crs, self.path.name)]

    def _place(self, mask) -> Place:
        if usable(mask.crs) or self.like is None:
            return Place(None, mask.transform, need_crs(self.path, mask.crs), mask.shape)
        with open_raster(self.like) as image:
            if image.shape != mask.shape:
                raise InputError(
                    f"{self.path}: its CRS is broken and {self.like.name} has other pixels "
                    f"({image.shape}, the mask {mask.shape}); georeference the mask"
                )
            return Place(None, image.transform, need_crs(self.like, image.crs), image.shape)


@dataclass
class RasterLabels:
    """Class indices (H, W) uint8 on georeferenced pixels."""

    classes: np.ndarray
    transform: Affine
    crs: CRS
    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """See Labels.draw; nearest neighbour."""
        return resample_labels(
            self.classes, self.transform, self.crs, grid, LABEL_PIXELS, UNLABELLED
        )


def code_table(legend: str | dict, where: object) -> dict[int, str]:
    """Code -> class name. Raises InputError for a name that is no table, a code that is no number,
    no such class."""
    if isinstance(legend, str):
        if legend not in CODES:
            raise InputError(
                f"{where}: label legend {legend!r}: expected one of {sorted(CODES)}, or a table "
                '{"code": "class name"}'
            )
        return CODES[legend]
    table = {}
    for code, name in legend.items():
        try:
            number = int(code)
        except ValueError:
            raise InputError(f"{where}: legend: code {code!r}: expected a whole number") from None
        if name not in INDEX:
            raise InputError(
                f"{where}: legend: code {code}: no class {name!r}{did_you_mean(str(name), INDEX)}; "
                "docs/classes.md lists them"
            )
        table[number] = name
    return table


def map_codes(codes: np.ndarray, table: dict[int, str]) -> np.ndarray:
    """Codes of a source (H, W) -> class indices uint8 (H, W), 255 where the table has no entry."""
    classes = np.full(codes.shape, UNLABELLED, np.uint8)
    for code, name in table.items():
        classes[codes == code] = INDEX[name]
    return classes


def codes_on_grid(path: File, grid: Grid, pixels: int) -> np.ndarray | None:
    """Codes of a raster's first band on the grid's pixels, nearest neighbour, -1 outside; None if
    it is elsewhere."""
    with open_raster(path) as dataset:
        place = Place(None, dataset.transform, dataset.crs, dataset.shape)
        window = place.window(grid)
        if window is None:
            return None
        codes = dataset.read(1, window=pixels_of(window)).astype(np.int32)
    return resample_labels(codes, window.transform, place.crs, grid, pixels, -1)
