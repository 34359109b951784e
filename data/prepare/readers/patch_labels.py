"""Labels of a patch: a code a pixel, in a picture or an array without a place."""

from dataclasses import dataclass

import numpy as np
from affine import Affine

from data.errors import InputError
from data.prepare.contract.files import File, open_picture
from data.prepare.place.extent import Extent
from data.prepare.place.georeference import NOWHERE, Georeference
from data.prepare.place.grid import Grid
from data.prepare.place.window import Window
from data.prepare.readers.patch import gsd_faults, need_no_place
from data.prepare.readers.patch_arrays import array_faults, array_name, is_array, read_array
from data.prepare.readers.raster_labels import (
    RasterLabels,
    code_table,
    legend_faults,
    map_codes,
    need_no_class,
)
from data.prepare.readers.rasters import band_of_codes, stored_mask
from data.tiles.tile import UNLABELLED


@dataclass(frozen=True, kw_only=True)
class PatchLabels:
    """A picture of one band, or an array (H, W), of codes."""

    path: File
    legend: str | dict  # as of GeoTiffLabels
    gsd: float  # metres of ground along a pixel
    array: str = ""  # of a .npz file with several

    def check_keys(self) -> list[str]:
        """A sound legend and gsd."""
        return [
            *legend_faults(self.legend),
            *gsd_faults(self.gsd),
            *array_faults(self.path, self.array, ""),
        ]

    def check(self) -> None:
        """One band of codes, no georeference."""
        self._codes()

    def place(self) -> Extent:
        """The size on the ground."""
        codes, _ = self._codes()
        height, width = codes.shape
        return Extent(self.path.name, (height, width), self.gsd)

    def read(self, grid: Grid) -> list[RasterLabels]:
        """One RasterLabels."""
        codes, is_label = self._codes()  # H W each
        classes = map_codes(codes, code_table(self.legend))
        classes[~is_label] = UNLABELLED
        name = array_name(self.path, self.array)
        return [RasterLabels(classes, self.place().on(grid), name)]

    def _codes(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes (H, W), and which of them are labels, bool (H, W)."""
        if is_array(self.path):
            array = read_array(self.path, self.array)
            codes = array.squeeze()
            if codes.ndim != 2 or codes.dtype.kind not in "biuf":
                raise InputError(
                    f"{self.path}: expected codes (H, W), found {array.dtype} {array.shape}"
                )
            return codes, np.ones(codes.shape, bool)
        with open_picture(self.path) as dataset:
            need_no_place(dataset, self.path, "geotiff_labels")
            number = band_of_codes(dataset, self.path, key="")
            need_no_class(dataset.nodatavals[number - 1], self.legend, where=self.path)
            height, width = dataset.shape
            pixels = Georeference(Affine.identity(), NOWHERE)
            whole = Window(slice(0, height), slice(0, width), pixels)
            return dataset.read(1), stored_mask(dataset, [1], whole)
