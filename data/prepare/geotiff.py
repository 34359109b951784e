"""GeoTIFF: aerial images, single-date Sentinel images, label masks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags

from data.classes import CODES, map_codes
from data.errors import InputError
from data.modalities import MODALITIES, observed
from data.prepare.grid import Grid, resample_labels
from data.prepare.source import Frames, check_date, described, need_crs, need_north_up, open_raster, usable
from data.tile import LABEL_PIXELS, UNLABELLED


@dataclass(frozen=True)
class GeoTiffImage:
    """One frame of one sensor. ``bands`` names the file's bands in file order; bands that the sensor does not have are
    left out. Numbers must be in the registry's units: bytes, reflectance x 1e4, dB."""

    path: Path
    modality: str
    bands: tuple[str, ...]
    date: str
    date_accuracy: str = "day"  # see source.ACCURACIES

    def check(self) -> None:
        """Modality known, date, band count and names, north-up pixels with a CRS."""
        check_date(self.path, self.date, self.date_accuracy)
        if self.modality not in MODALITIES:
            raise InputError(f"{self.path}: modality {self.modality!r}: expected one of {sorted(MODALITIES)}")
        missing = [band for band in MODALITIES[self.modality].bands if band not in self.bands]
        if missing:
            raise InputError(f"{self.path}: bands {list(self.bands)} lack {missing} of {self.modality}")
        with open_raster(self.path) as dataset:
            if dataset.count != len(self.bands):
                raise InputError(f"{self.path}: expected {len(self.bands)} bands {list(self.bands)}, "
                                 f"found {dataset.count}; correct the file or the manifest's bands")
            described = tuple(dataset.descriptions)
            if any(described) and described != self.bands:
                raise InputError(f"{self.path}: the file calls its bands {list(described)}, the manifest "
                                 f"{list(self.bands)}; correct the manifest")
            need_crs(self.path, dataset.crs)
            need_north_up(self.path, dataset.transform)
            kind = MODALITIES[self.modality].dtype
            if not np.can_cast(dataset.dtypes[0], kind):
                raise InputError(f"{self.path}: expected {self.modality} as {kind}, found {dataset.dtypes[0]}")

    def read(self) -> list[Frames]:
        """One Frames of one frame."""
        sensor = MODALITIES[self.modality]
        with open_raster(self.path) as dataset:
            order = [self.bands.index(band) + 1 for band in sensor.bands]
            try:
                array = dataset.read(order)[None].astype(sensor.dtype)  # 1 C H W
                mask = _file_mask(dataset, order)[None]  # 1 H W
            except rasterio.errors.RasterioIOError as error:
                raise InputError(f"{self.path}: the file is damaged ({error}); fetch it again") from None
            return [Frames(self.modality, array, mask & observed(array, sensor), [self.date], dataset.transform,
                           dataset.crs, described(self.path.name, self.date_accuracy))]


@dataclass(frozen=True)
class GeoTiffLabels:
    """A mask of pixel codes. ``legend`` names the code table of data/classes.py. ``like``: a raster of the same pixels
    whose georeference stands in when the mask's own CRS is broken."""

    path: Path
    legend: str
    like: Path | None = None

    def check(self) -> None:
        """One integer band, legend known, a usable CRS from the mask or from ``like``."""
        if self.legend not in CODES:
            raise InputError(f"{self.path}: label legend {self.legend!r}: expected one of {sorted(CODES)}")
        with open_raster(self.path) as dataset:
            if dataset.count != 1 or not np.issubdtype(dataset.dtypes[0], np.integer):
                raise InputError(f"{self.path}: expected one band of integer codes, found {dataset.count} of "
                                 f"{dataset.dtypes[0]}")
            transform, _ = self._georeference(dataset)
            need_north_up(self.path, transform)

    def read(self) -> list["RasterLabels"]:
        """One RasterLabels."""
        with open_raster(self.path) as dataset:
            transform, crs = self._georeference(dataset)
            return [RasterLabels(map_codes(dataset.read(1), self.legend), transform, crs, self.path.name)]

    def _georeference(self, mask) -> tuple[Affine, CRS]:
        if usable(mask.crs) or self.like is None:
            return mask.transform, need_crs(self.path, mask.crs)
        with open_raster(self.like) as image:
            if image.shape != mask.shape:
                raise InputError(f"{self.path}: its CRS is broken and {self.like.name} has other pixels "
                                 f"({image.shape}, the mask {mask.shape}); georeference the mask")
            return image.transform, need_crs(self.like, image.crs)


@dataclass
class RasterLabels:
    """Class indices (H, W) uint8 on georeferenced pixels."""

    classes: np.ndarray
    transform: Affine
    crs: CRS
    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """See Labels.draw; nearest neighbour."""
        return resample_labels(self.classes, self.transform, self.crs, grid, LABEL_PIXELS, UNLABELLED)


def _file_mask(dataset, order: list[int]) -> np.ndarray:
    """The file's own nodata or mask, bool (H, W). An alpha band is none: the manifest names every band as data, and
    writers of four-band aerials often mark the fourth as alpha."""
    if any(MaskFlags.alpha in flags for flags in dataset.mask_flag_enums):
        return np.ones(dataset.shape, bool)
    return (dataset.read_masks(order) > 0).all(axis=0)
