"""Label rasters: a code a pixel, and a table that says which class a code is."""

from dataclasses import dataclass

import numpy as np
import rasterio

from data.errors import InputError
from data.prepare.contract.files import File, need_crs, need_upright, open_raster
from data.prepare.contract.source import Place
from data.prepare.place.georeference import Georeference, has_place
from data.prepare.place.grid import Grid
from data.prepare.place.resample import resample_labels
from data.prepare.readers.rasters import (
    band_of_codes,
    need_one_image,
    need_transform,
    pixels_of,
    place_of,
    stored_mask,
)
from data.suggest import did_you_mean
from data.tiles.classes import CODES, INDEX
from data.tiles.tile import LABEL_PIXELS, UNLABELLED


@dataclass(frozen=True)
class GeoTiffLabels:
    """A mask of pixel codes."""

    path: File
    legend: str | dict  # the name of a table in data/tiles/classes.py, or {"code": "class name"}
    # A raster of the same pixels, whose georeference stands in when the CRS of the mask is broken.
    like: File | None = None
    band: str | int = ""  # its name or number; empty: the file has one

    def check_keys(self) -> list[str]:
        """A sound legend."""
        return legend_faults(self.legend)

    def check(self) -> None:
        """One band of codes, a usable CRS from the mask or from ``like``."""
        with open_raster(self.path) as dataset:
            need_one_image(dataset, self.path)
            number = self._number(dataset)
            need_no_class(dataset.nodatavals[number - 1], self.legend, where=self.path)
            need_upright(self.path, self._place(dataset).georeference.transform)

    def place(self) -> Place:
        """The mask's pixels."""
        with open_raster(self.path) as dataset:
            return self._place(dataset)

    def read(self, grid: Grid) -> list["RasterLabels"]:
        """One RasterLabels."""
        with open_raster(self.path) as dataset:
            window = self._place(dataset).window(grid)
            if window is None:
                return []
            number = self._number(dataset)
            codes = dataset.read(number, window=pixels_of(window))  # H W
            is_label = stored_mask(dataset, [number], window)  # H W
        classes = map_codes(codes, code_table(self.legend))
        classes[~is_label] = UNLABELLED
        return [RasterLabels(classes, window.georeference, self.path.name)]

    def _number(self, dataset: rasterio.DatasetReader) -> int:
        """The number of the band of codes."""
        return band_of_codes(dataset, self.path, self.band, key="band")

    def _place(self, mask: rasterio.DatasetReader) -> Place:
        if has_place(mask.crs) or self.like is None:
            need_transform(mask, self.path)
            need_crs(self.path, mask.crs)
            return place_of(mask, None)
        with open_raster(self.like) as image:
            if image.shape != mask.shape:
                raise InputError(
                    f"{self.path}: its CRS is broken and {self.like.name} has other pixels "
                    f"({image.shape}, the mask {mask.shape}); georeference the mask"
                )
            need_crs(self.like, image.crs)
            return place_of(image, None)


@dataclass
class RasterLabels:
    """Class indices on georeferenced pixels."""

    classes: np.ndarray  # (H, W) uint8
    georeference: Georeference
    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """See Labels.draw; nearest neighbour."""
        return resample_labels(
            self.classes, self.georeference, grid, pixels=LABEL_PIXELS, fill=UNLABELLED
        )


def legend_faults(legend: str | dict) -> list[str]:
    """What is wrong with a legend; see ``Reader.check_keys``.

    Args:
        legend: the name of a table in data/tiles/classes.py, or {"code": "class name"}.
    """
    if isinstance(legend, str):
        if legend in CODES:
            return []
        return [
            f"legend {legend!r}: expected one of {sorted(CODES)}, or a table "
            f'{{"code": "class name"}}{did_you_mean(legend, CODES)}'
        ]
    faults = []
    if not legend:
        faults.append('legend: expected a table {"code": "class name"}, found an empty one')
    for code, name in legend.items():
        try:
            int(code)
        except (TypeError, ValueError):
            faults.append(f"legend: code {code!r}: expected a whole number")
        if not isinstance(name, str) or name not in INDEX:
            faults.append(
                f"legend: code {code}: no class {name!r}{did_you_mean(str(name), INDEX)}; "
                "docs/classes.md lists them"
            )
    return faults


def code_table(legend: str | dict) -> dict[int, str]:
    """The class name of each code of a sound legend."""
    if isinstance(legend, str):
        return CODES[legend]
    return {int(code): name for code, name in legend.items()}


def need_no_class(nodata: float | None, legend: str | dict, *, where: File) -> None:
    """Raise InputError when a file's number of no observation is a code of the legend.

    A nodata of 0 stays a code, because many writers set it without a thought.

    Args:
        nodata: what the file says.
        legend: a sound legend.
        where: the file, for errors.
    """
    if not nodata or not np.isfinite(nodata) or nodata != int(nodata):
        return
    name = code_table(legend).get(int(nodata))
    if name is not None:
        raise InputError(
            f"{where}: nodata {nodata:g} of the file is {name!r} in the legend; take it out of one "
            "of them (gdal_edit -unsetnodata)"
        )


def map_codes(codes: np.ndarray, table: dict[int, str]) -> np.ndarray:
    """Codes of a source (H, W) -> class indices uint8 (H, W), 255 where the table has no entry."""
    classes = np.full(codes.shape, UNLABELLED, np.uint8)
    for code, name in table.items():
        classes[codes == code] = INDEX[name]
    return classes
