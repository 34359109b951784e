"""Patches of labelled sets: pictures and arrays without a place, whose pixel size is known.

Their pixels are resampled to the sensor's size by the ground sampling distance, or kept as they
are. Where they lie on the tile: see data/prepare/place/extent.py.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import rasterio

from data.errors import InputError
from data.prepare.contract.bands import BandKeys, find_bands
from data.prepare.contract.days import day_of_text, time_of_text
from data.prepare.contract.file_units import need_scale_of_all
from data.prepare.contract.files import File, open_picture
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import (
    Frames,
    Layer,
    band_faults,
    date_faults,
    join_layers,
    modality_faults,
)
from data.prepare.place.extent import Extent
from data.prepare.place.georeference import has_place
from data.prepare.place.grid import CELL, Grid
from data.prepare.place.specks import with_ground
from data.prepare.place.window import Window
from data.prepare.readers.patch_arrays import (
    array_faults,
    array_name,
    bands_first,
    is_array,
    read_array,
)
from data.prepare.readers.raster_bands import ALPHA_KEYS, IGNORE, MASK, RasterBands, bands_of_image
from data.prepare.readers.raster_pixels import OpenBands, numbers_of_band, only_numbers, read_layer
from data.prepare.readers.rasters import need_one_image
from data.suggest import did_you_mean
from data.tiles.modalities import BYTE, MODALITIES, Modality

RESAMPLE = "resample"
KEEP = "keep"
PIXELS = (RESAMPLE, KEEP)
STAND_IN = "2020-07-01"  # for a date that nobody knows; all sensors were at work


@dataclass(frozen=True, kw_only=True)
class Patch(Radiometry):
    """One frame of one sensor: a picture that GDAL reads, or an array of a .npy or .npz file."""

    path: File
    modality: str
    bands: BandKeys
    gsd: float  # metres of ground along a pixel
    pixels: str = RESAMPLE  # KEEP: a pixel is one of the sensor's, whatever its gsd
    array: str = ""  # of a .npz file with several
    axes: str = ""  # of an array, see patch_arrays.AXES; empty: as its shape tells
    alpha: str = ""  # of a picture, see raster_bands.ALPHA_KEYS
    date: str = ""  # or a time; empty: not known
    date_accuracy: str = "day"  # see source.ACCURACIES

    def check_keys(self) -> list[str]:
        """Modality, bands, gsd, date, numbers, and the keys of pictures or of arrays."""
        faults = [
            *modality_faults(self.modality),
            *band_faults(self.modality, self.bands),
            *gsd_faults(self.gsd),
            *self.number_faults(self.modality),
            *array_faults(self.path, self.array, self.axes),
        ]
        if self.pixels not in PIXELS:
            faults.append(
                f"pixels {self.pixels!r}: expected one of {list(PIXELS)}"
                f"{did_you_mean(self.pixels, PIXELS)}"
            )
        if self.date or self.date_accuracy not in ("day", "unknown"):
            faults += date_faults(self.date, self.date_accuracy)
        if self.alpha not in ALPHA_KEYS:
            faults.append(f"alpha {self.alpha!r}: expected {MASK!r} or {IGNORE!r}")
        return faults

    def check(self) -> None:
        """Bands that are there, numbers that fit, no georeference."""
        if is_array(self.path):
            self._raw()
            return
        keys = only_numbers(self)
        with self._opened() as (dataset, bands):
            numbers = {}
            for band, number in bands.numbers.items():
                own = numbers_of_band(dataset, number, keys, self._sensor, path=self.path)
                numbers[band] = own
        need_scale_of_all(numbers, dict.fromkeys(numbers, keys), self._sensor, where=self.path)

    def place(self) -> Extent:
        """The size on the ground."""
        if is_array(self.path):
            _, height, width = self._bands_first().shape
        else:
            with open_picture(self.path) as dataset:
                height, width = dataset.shape
        return Extent(self.path.name, (height, width), self._taken_gsd)

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        layer = self._layer(grid)
        array, valid = join_layers([layer], self._sensor, grid)
        frames = Frames(
            modality=self.modality,
            array=array,
            valid=valid,
            dates=[day_of_text(self.date or STAND_IN)],
            source=self._record(),
            times=[time_of_text(self.date)],
        )
        return [frames]

    @property
    def _sensor(self) -> Modality:
        return MODALITIES[self.modality]

    @property
    def _taken_gsd(self) -> float:
        """Metres along a pixel as the tile has it."""
        if self.pixels == KEEP:
            return CELL / self._sensor.pixels
        return self.gsd

    def _record(self) -> str:
        """What the tile records of the file, and what is assumed of it."""
        facts = [f"{self.gsd:g} m a pixel"]
        if self.pixels == KEEP:
            facts.append(f"taken for {self._taken_gsd:g} m")
        if not self.date or self.date_accuracy == "unknown":
            facts.append("date accuracy: unknown")
        elif self.date_accuracy != "day":
            facts.append(f"date accuracy: {self.date_accuracy}")
        return f"{array_name(self.path, self.array)} ({', '.join(facts)})"

    def _layer(self, grid: Grid) -> Layer:
        """All pixels, in the units of the archive."""
        georeference = self.place().on(grid)
        if is_array(self.path):
            raw = self._raw()[None]  # 1 C H W
            valid = self.observed(raw, self._sensor)  # 1 H W
            if self._sensor.unit == BYTE:
                valid = with_ground(valid, raw, area=self.gsd**2)
            array, valid = self.convert(raw, valid, self._sensor, where=self.path)
            return Layer(
                bands=self._sensor.bands, array=array, valid=valid, georeference=georeference
            )
        keys = only_numbers(self)
        with self._opened() as (dataset, bands):
            height, width = dataset.shape
            window = Window(slice(0, height), slice(0, width), georeference)
            file = OpenBands(dataset, bands, dict.fromkeys(bands.numbers, keys), self.path)
            return read_layer([file], window, self._sensor)

    @contextmanager
    def _opened(self) -> Iterator[tuple[rasterio.DatasetReader, RasterBands]]:
        """The picture, open, and its bands."""
        sensor = self._sensor
        with open_picture(self.path) as dataset:
            need_no_place(dataset, self.path, "geotiff_image")
            yield (
                dataset,
                bands_of_image(dataset, self.bands, sensor, alpha=self.alpha, path=self.path),
            )

    def _raw(self) -> np.ndarray:
        """The bands of an array, (C, H, W) in registry order."""
        array = self._bands_first()
        where = self._where
        self.check_numbers(where, self._sensor, array.dtype)
        positions = find_bands(
            self.bands, [None] * len(array), self._sensor, where=where, ordered=True
        )
        return array[list(positions.values())]

    def _bands_first(self) -> np.ndarray:
        """An array as (C, H, W), with all its bands."""
        array = read_array(self.path, self.array)
        return bands_first(array, self.bands, self.axes, where=self._where)

    @property
    def _where(self) -> str:
        """The array, for errors."""
        if self.array:
            return f"{self.path}[{self.array}]"
        return str(self.path)


def need_no_place(dataset: rasterio.DatasetReader, path: File, reader: str) -> None:
    """Raise InputError for a picture that says where it lies, or for several in one file.

    Args:
        dataset: the file, open.
        path: the file.
        reader: the one that uses the place, for errors.
    """
    need_one_image(dataset, path)
    if has_place(dataset.crs):
        raise InputError(
            f"{path}: has a place ({dataset.crs.to_string()[:40]}), which a patch has not; use "
            f"the reader {reader}"
        )


def gsd_faults(gsd: float) -> list[str]:
    """What is wrong with the key ``gsd``; see ``Reader.check_keys``."""
    if 0 < gsd < math.inf:
        return []
    return [f"gsd {gsd}: expected metres of ground along a pixel, above 0"]
