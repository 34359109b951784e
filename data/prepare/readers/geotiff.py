"""One acquisition as GeoTIFF, COG or any other raster that GDAL reads.

All bands lie in one file, or each band in a file of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from data.errors import InputError
from data.prepare.contract.files import File, open_raster
from data.prepare.contract.grid import Grid
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import (
    Frames,
    Layer,
    Place,
    band_faults,
    date_faults,
    join_layers,
    modality_faults,
    source_record,
)
from data.prepare.contract.window import Window
from data.prepare.readers.rasters import check_place, codes_on_grid, pixels_of, place_of
from data.tiles.modalities import MODALITIES


@dataclass(frozen=True, kw_only=True)
class _Acquisition(Radiometry):
    """Keys that both readers share."""

    modality: str
    date: str
    date_accuracy: str = "day"  # see source.ACCURACIES
    mask: File | None = None  # a raster of codes
    masked: tuple[int, ...] = ()  # the codes that hide a pixel

    def _key_faults(self, bands: Iterable[str]) -> list[str]:
        """What is wrong with the keys that both readers share, and with the names of bands."""
        faults = [
            *modality_faults(self.modality),
            *band_faults(self.modality, bands),
            *date_faults(self.date, self.date_accuracy),
            *self.number_faults(self.modality),
        ]
        if (self.mask is None) != (not self.masked):
            faults.append(
                "mask and masked need each other: a raster of codes, and the codes that hide"
            )
        return faults

    def _check_mask(self) -> None:
        """Check that the raster of codes has a place."""
        if self.mask is not None:
            with open_raster(self.mask) as dataset:
                check_place(dataset, self.mask)

    def _check_raster(self, dataset: rasterio.DatasetReader, path: File) -> None:
        """Check that the pixels of a file have a place and numbers that fit."""
        check_place(dataset, path)
        self.check_numbers(path, MODALITIES[self.modality], dataset.dtypes[0])

    def _frames(self, layers: list[Layer], grid: Grid, name: str) -> list[Frames]:
        """One frame on the grid, the mask applied."""
        sensor = MODALITIES[self.modality]
        array, valid = join_layers(layers, sensor, grid)
        if self.mask is not None:
            codes = codes_on_grid(self.mask, grid, pixels=sensor.pixels)  # h h
            if codes is None:
                valid[:] = False
            else:
                valid &= ~np.isin(codes, self.masked)
        frames = Frames(
            modality=self.modality,
            array=array,
            valid=valid,
            dates=[self.date],
            source=source_record(name, self.date_accuracy),
        )
        return [frames]

    def _layer(
        self, path: File, bands: tuple[str, ...], numbers: Sequence[int], grid: Grid
    ) -> Layer | None:
        """Read bands of one file over the grid.

        Args:
            path: the file.
            bands: the names of the bands.
            numbers: their numbers in the file, from 1.
            grid: the tile's grid.

        Returns:
            The layer; None when the file does not touch the grid.
        """
        with open_raster(path) as dataset:
            window = place_of(dataset, self.modality).window(grid)
            if window is None:
                return None
            raw = dataset.read(numbers, window=pixels_of(window))[None]  # 1 C H W
            mask = _file_mask(dataset, numbers, window)  # H W
        array, valid = self.in_units(raw, MODALITIES[self.modality])
        return Layer(bands=bands, array=array, valid=valid & mask, georeference=window.georeference)


@dataclass(frozen=True)
class GeoTiffImage(_Acquisition):
    """All bands in one file."""

    path: File
    bands: tuple[str, ...]  # in file order; bands that the sensor does not have are left out

    def check_keys(self) -> list[str]:
        """Modality, bands, date, numbers, mask."""
        return self._key_faults(self.bands)

    def check(self) -> None:
        """Count and names of the bands, pixels with a place, numbers that fit."""
        self._check_mask()
        with open_raster(self.path) as dataset:
            if dataset.count != len(self.bands):
                raise InputError(
                    f"{self.path}: expected {len(self.bands)} bands {list(self.bands)}, "
                    f"found {dataset.count}; correct the file or the manifest's bands"
                )
            descriptions = tuple(dataset.descriptions)
            if any(descriptions) and descriptions != self.bands:
                raise InputError(
                    f"{self.path}: the file calls its bands {list(descriptions)}, the manifest "
                    f"{list(self.bands)}; correct the manifest"
                )
            self._check_raster(dataset, self.path)

    def place(self) -> Place:
        """The file's pixels."""
        with open_raster(self.path) as dataset:
            return place_of(dataset, self.modality)

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        bands = MODALITIES[self.modality].bands
        numbers = [self.bands.index(band) + 1 for band in bands]
        layer = self._layer(self.path, bands, numbers, grid)
        if layer is None:
            return []
        return self._frames([layer], grid, self.path.name)


@dataclass(frozen=True)
class GeoTiffBands(_Acquisition):
    """A file a band. Pixel sizes may differ."""

    files: dict[str, File]  # band of the sensor -> its file

    def check_keys(self) -> list[str]:
        """As for one file; the sensor has all bands."""
        faults = self._key_faults(self.files)
        if self.modality in MODALITIES:
            bands = MODALITIES[self.modality].bands
            unknown = [band for band in self.files if band not in bands]
            if unknown:
                faults.append(
                    f"files: {self.modality} has no bands {unknown}; expected exactly {list(bands)}"
                )
        return faults

    def check(self) -> None:
        """As for one file, for each of them; one band a file."""
        self._check_mask()
        for path in self.files.values():
            with open_raster(path) as dataset:
                if dataset.count != 1:
                    raise InputError(
                        f"{path}: expected one band, found {dataset.count}; use geotiff_image"
                    )
                self._check_raster(dataset, path)

    def place(self) -> Place:
        """The pixels of the finest band."""
        places = []
        for path in self.files.values():
            with open_raster(path) as dataset:
                places.append(place_of(dataset, self.modality))
        return min(places, key=_pixel_width)

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        layers = []
        for band, path in self.files.items():
            layer = self._layer(path, (band,), [1], grid)
            if layer is None:
                return []
            layers.append(layer)
        return self._frames(layers, grid, f"{len(self.files)} files of {self._first_file.name}")

    @property
    def _first_file(self) -> File:
        return next(iter(self.files.values()))


def _pixel_width(place: Place) -> float:
    return place.georeference.transform.a


def _file_mask(
    dataset: rasterio.DatasetReader, numbers: Sequence[int], window: Window
) -> np.ndarray:
    """The file's own nodata or mask in a window, bool (H, W).

    An alpha band is not used as a mask: the manifest names every band as data, and writers of
    four-band aerials often mark the fourth band as alpha.
    """
    if any(MaskFlags.alpha in flags for flags in dataset.mask_flag_enums):
        return np.ones(window.shape, bool)
    return (dataset.read_masks(numbers, window=pixels_of(window)) > 0).all(axis=0)
