"""One acquisition as GeoTIFF, COG or any other raster that GDAL reads.

All bands lie in one file, or each band in a file of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import rasterio

from data.prepare.contract.bands import BandKeys, registry_name
from data.prepare.contract.days import day_of_text, time_of_text
from data.prepare.contract.file_units import need_scale_of_all
from data.prepare.contract.files import File, open_raster
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
from data.prepare.place.grid import Grid
from data.prepare.readers.raster_bands import (
    ALPHA_KEYS,
    IGNORE,
    MASK,
    RasterBands,
    band_of_file,
    bands_of_image,
)
from data.prepare.readers.raster_pixels import OpenBands, numbers_of_band, only_numbers, read_layer
from data.prepare.readers.rasters import (
    NO_CODE,
    band_of_codes,
    check_place,
    codes_on_grid,
    need_one_image,
    place_of,
)
from data.suggest import did_you_mean
from data.tiles.modalities import BYTE, MODALITIES

MOST_BITS = 31  # of a code
BAND_NUMBERS = ("scale", "offset", "nodata")


@dataclass(frozen=True, kw_only=True)
class _Acquisition(Radiometry):
    """Keys that both readers share."""

    modality: str
    date: str  # or a time
    date_accuracy: str = "day"  # see source.ACCURACIES
    mask: File | None = None  # a raster of codes
    mask_band: str | int = ""  # its name or number; empty: the raster has one
    masked: tuple[int, ...] = ()  # the codes that hide a pixel
    masked_bits: tuple[int, ...] = ()  # bits of a code of which each hides a pixel, from 0
    alpha: str = ""  # see raster_bands.ALPHA_KEYS
    # Band of the sensor -> its own scale, offset and nodata, which replace those of all bands.
    band_numbers: dict[str, dict[str, float]] = field(default_factory=dict)

    def _key_faults(self, bands: BandKeys) -> list[str]:
        """What is wrong with the keys that both readers share, and with the names of bands."""
        faults = [
            *modality_faults(self.modality),
            *band_faults(self.modality, bands),
            *date_faults(self.date, self.date_accuracy),
            *self.number_faults(self.modality),
        ]
        faults += self._mask_faults()
        if self.alpha not in ALPHA_KEYS:
            faults.append(f"alpha {self.alpha!r}: expected {MASK!r} or {IGNORE!r}")
        return faults + self._band_number_faults()

    def _mask_faults(self) -> list[str]:
        """What is wrong with the keys of the mask."""
        faults = []
        if (self.mask is None) != (not self.masked and not self.masked_bits):
            faults.append(
                "mask and masked need each other: a raster of codes, and the codes that hide "
                "(or masked_bits, the bits that do)"
            )
        if self.mask is None and self.mask_band != "":
            faults.append(f"mask_band {self.mask_band!r} without a mask")
        wrong = [bit for bit in self.masked_bits if not 0 <= bit < MOST_BITS]
        if wrong:
            faults.append(f"masked_bits {wrong}: expected numbers from 0 to {MOST_BITS - 1}")
        return faults

    def _band_number_faults(self) -> list[str]:
        """What is wrong with the key ``band_numbers``."""
        faults = []
        sensor = MODALITIES.get(self.modality)
        for band, numbers in self.band_numbers.items():
            if sensor is not None and band not in sensor.bands:
                faults.append(
                    f"band_numbers: {sensor.key} has no band {band!r}"
                    f"{did_you_mean(band, sensor.bands)}; expected names of {list(sensor.bands)}"
                )
            unknown = sorted(numbers.keys() - set(BAND_NUMBERS))
            if unknown:
                faults.append(
                    f"band_numbers: {band}: unknown {unknown}; expected some of "
                    f"{list(BAND_NUMBERS)}"
                )
                continue
            for fault in self._numbers(band).number_faults(self.modality):
                faults.append(f"band_numbers: {band}: {fault}")
        return faults

    def _numbers(self, band: str) -> Radiometry:
        """What the keys say of the numbers of a band."""
        own: dict[str, Any] = {**self.band_numbers.get(band, {})}
        return replace(only_numbers(self), **own)

    def _check_mask(self) -> None:
        """Check that the raster of codes has a place and codes."""
        if self.mask is not None:
            with open_raster(self.mask) as dataset:
                check_place(dataset, self.mask)
                band_of_codes(dataset, self.mask, self.mask_band)

    def _checked(
        self, dataset: rasterio.DatasetReader, bands: RasterBands, path: File
    ) -> dict[str, Radiometry]:
        """How the numbers of each band of a file are read, whose pixels have a place."""
        check_place(dataset, path)
        sensor = MODALITIES[self.modality]
        numbers = {}
        for band, number in bands.numbers.items():
            own = self._numbers(band)
            numbers[band] = numbers_of_band(dataset, number, own, sensor, path=path)
        return numbers

    def _need_scale_of_all(self, numbers: dict[str, Radiometry], path: File) -> None:
        """See ``file_units.need_scale_of_all``."""
        keys = {band: self._numbers(band) for band in numbers}
        need_scale_of_all(numbers, keys, MODALITIES[self.modality], where=path)

    def _frames(self, layers: list[Layer], grid: Grid, name: str) -> list[Frames]:
        """One frame on the grid, the mask applied."""
        sensor = MODALITIES[self.modality]
        array, valid = join_layers(layers, sensor, grid)
        if self.mask is not None:
            codes = codes_on_grid(self.mask, grid, pixels=sensor.pixels, band=self.mask_band)  # h h
            if codes is None:
                valid[:] = False
            else:
                hiding = sum(1 << bit for bit in set(self.masked_bits))
                valid &= ~np.isin(codes, (*self.masked, NO_CODE)) & (codes & hiding == 0)
        frames = Frames(
            modality=self.modality,
            array=array,
            valid=valid,
            dates=[day_of_text(self.date)],
            source=source_record(name, self.date_accuracy),
            times=[time_of_text(self.date)],
        )
        return [frames]

    def _of_file(
        self, dataset: rasterio.DatasetReader, bands: RasterBands, path: File
    ) -> OpenBands:
        """Bands of a file with what the keys say of each."""
        keys = {band: self._numbers(band) for band in bands.numbers}
        return OpenBands(dataset, bands, keys, path)

    def _layer(self, files: Sequence[OpenBands], grid: Grid) -> Layer | None:
        """Read bands of files with the same pixels; None when they do not touch the grid."""
        window = place_of(files[0].dataset, self.modality).window(grid)
        if window is None:
            return None
        return read_layer(files, window, MODALITIES[self.modality])


@dataclass(frozen=True)
class GeoTiffImage(_Acquisition):
    """All bands in one file."""

    path: File
    # All bands in file order, or some by name or number; those that the sensor lacks are left out.
    bands: BandKeys

    def check_keys(self) -> list[str]:
        """Modality, bands, date, numbers, mask."""
        return self._key_faults(self.bands)

    def check(self) -> None:
        """Names of the bands, pixels with a place, numbers that fit."""
        self._check_mask()
        with self._opened() as (dataset, bands):
            numbers = self._checked(dataset, bands, self.path)
        self._need_scale_of_all(numbers, self.path)

    def place(self) -> Place:
        """The file's pixels."""
        with open_raster(self.path) as dataset:
            return place_of(dataset, self.modality)

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        with self._opened() as (dataset, bands):
            layer = self._layer([self._of_file(dataset, bands, self.path)], grid)
        if layer is None:
            return []
        return self._frames([layer], grid, self.path.name)

    @contextmanager
    def _opened(self) -> Iterator[tuple[rasterio.DatasetReader, RasterBands]]:
        """The file, open, and its bands."""
        sensor = MODALITIES[self.modality]
        with open_raster(self.path) as dataset:
            need_one_image(dataset, self.path)
            yield (
                dataset,
                bands_of_image(dataset, self.bands, sensor, alpha=self.alpha, path=self.path),
            )


@dataclass(frozen=True)
class GeoTiffBands(_Acquisition):
    """A file a band. Pixel sizes may differ."""

    files: dict[str, File]  # band of the sensor -> its file

    def check_keys(self) -> list[str]:
        """As for one file; the sensor has all bands."""
        faults = self._key_faults(tuple(self.files))
        sensor = MODALITIES.get(self.modality)
        if sensor is not None:
            unknown = [name for name in self.files if registry_name(name, sensor) is None]
            if unknown:
                faults.append(
                    f"files: {sensor.key} has no bands {unknown}; expected exactly "
                    f"{list(sensor.bands)}"
                )
        return faults

    def check(self) -> None:
        """As for one file, for each of them; one band a file."""
        self._check_mask()
        numbers = {}
        for name, path in self.files.items():
            with self._opened(name, path) as (dataset, bands):
                numbers.update(self._checked(dataset, bands, path))
        self._need_scale_of_all(numbers, self._first_file)

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
        with ExitStack() as stack:
            files = []
            for name, path in self.files.items():
                dataset, bands = stack.enter_context(self._opened(name, path))
                files.append(self._of_file(dataset, bands, path))
            for group in self._groups(files):
                layer = self._layer(group, grid)
                if layer is None:
                    return []
                layers.append(layer)
        name = f"{self._first_file.name} and {len(self.files) - 1} more"
        return self._frames(layers, grid, name)

    def _groups(self, files: list[OpenBands]) -> list[list[OpenBands]]:
        """Files that are read together: those of a picture that have the same pixels."""
        if MODALITIES[self.modality].unit != BYTE:
            return [[file] for file in files]
        groups: dict[Place, list[OpenBands]] = {}
        for file in files:
            groups.setdefault(place_of(file.dataset, self.modality), []).append(file)
        return list(groups.values())

    @contextmanager
    def _opened(
        self, name: str, path: File
    ) -> Iterator[tuple[rasterio.DatasetReader, RasterBands]]:
        """The file of a band, open, and its bands."""
        sensor = MODALITIES[self.modality]
        band = registry_name(name, sensor)
        assert band is not None  # as checked
        with open_raster(path) as dataset:
            need_one_image(dataset, path)
            yield dataset, band_of_file(dataset, band, sensor, alpha=self.alpha, path=path)

    @property
    def _first_file(self) -> File:
        return next(iter(self.files.values()))


def _pixel_width(place: Place) -> float:
    return place.georeference.transform.a
