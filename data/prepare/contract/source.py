"""The small interface that every reader has, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np
from rasterio.errors import CRSError

from data.prepare.contract.bands import BandKeys, key_faults
from data.prepare.contract.days import day_of_text
from data.prepare.contract.files import File
from data.prepare.place.extent import Extent
from data.prepare.place.georeference import Georeference, crs_of_text, has_place
from data.prepare.place.grid import Grid
from data.prepare.place.resample import resample
from data.prepare.place.window import Window, window_of
from data.suggest import did_you_mean
from data.tiles.modalities import MODALITIES, Modality, observed

# "year": July 1st stands for the year. "unknown": the date is a stand-in.
ACCURACIES = ("day", "year", "unknown")


@dataclass(frozen=True)
class Place:
    """Where a source's pixels lie, known from headers alone."""

    modality: str | None  # None: labels, which never give a tile its grid
    georeference: Georeference
    shape: tuple[int, int]  # rows, columns

    def window(self, grid: Grid) -> Window | None:
        """The pixels that ``grid`` needs; None when the source does not touch it."""
        return window_of(self.georeference, self.shape, grid)


@dataclass(kw_only=True)
class Frames:
    """A series of one sensor on the pixels of the grid that it was read for."""

    modality: str
    array: np.ndarray  # (T, C, h, h), bands in registry order, in the units of the archive
    valid: np.ndarray  # (T, h, h) bool
    dates: list[str]  # ISO day of each frame
    source: str  # the file that it came from, for the record; build adds its folder
    # Of each frame, in UTC without a zone, None where just its day is known; None: of no frame.
    times: Sequence[datetime | None] | None = None

    def keep(self, frames: Sequence[int] | np.ndarray) -> "Frames":
        """The frames of these positions, in the given order."""
        positions = [int(frame) for frame in frames]
        times = None
        if self.times is not None:
            times = [self.times[position] for position in positions]
        return Frames(
            modality=self.modality,
            array=self.array[positions],
            valid=self.valid[positions],
            dates=[self.dates[position] for position in positions],
            source=self.source,
            times=times,
        )

    def in_time_order(self, times: Sequence[str]) -> "Frames":
        """The frames in the order of ``times``, one a frame; equal times keep their order."""
        return self.keep(sorted(range(len(times)), key=times.__getitem__))


class Labels(Protocol):
    """Dense labels that can be drawn on the grid that they were read for."""

    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """uint8 class indices (8n, 8n) at 1.25 m, 255 where unlabelled."""


@dataclass(frozen=True)
class Remark:
    """What a reader has to tell of its source over a tile: a line of the tile's notes."""

    text: str


class Reader(Protocol):
    """One source of a tile: a dataclass whose fields are its keys in the manifest.

    ``File`` and ``Path`` fields, and tuples and dicts of them, name files relative to the manifest.
    All methods but the first raise InputError with the path for a file that is missing, damaged or
    not as expected.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def check_keys(self) -> list[str]:
        """Look at the values of the keys, and at no file.

        It is called for every source while the manifest is read, so it has to be quick.

        Returns:
            A line for each value that can never work; it begins with the key, and says what was
            expected and found. Empty when there is none. The other methods rely on that.
        """

    def check(self) -> None:
        """Look at headers only and raise InputError for what can never work."""

    def place(self) -> Place | Extent | None:
        """Where the pixels lie.

        Their extent when only their size on the ground is known. None when the file does not say,
        or when it holds shapes, which have no pixels.
        """

    def read(self, grid: Grid) -> Sequence[Frames | Labels | Remark]:
        """What the source holds over ``grid``, and no more; empty when it does not touch it.

        A remark says why, where a reader knows it.
        """


def files_of(reader: Reader) -> list[File]:
    """Every file that a reader names, in the order of its fields."""
    files: list[File] = []
    for field in fields(reader):
        value = getattr(reader, field.name)
        if isinstance(value, dict):
            candidates = list(value.values())
        elif isinstance(value, tuple):
            candidates = list(value)
        else:
            candidates = [value]
        files += [candidate for candidate in candidates if isinstance(candidate, File)]
    return files


def main_file(reader: Reader) -> File:
    """The file that stands for a reader: its ``path``, or the first of its many."""
    for name in ("path", "files", "paths"):
        value = getattr(reader, name, None)
        if isinstance(value, dict):
            value = tuple(value.values())
        if isinstance(value, tuple) and value:
            value = value[0]
        if isinstance(value, File):
            return value
    return files_of(reader)[0]


def modality_faults(modality: str) -> list[str]:
    """What is wrong with the key ``modality``; see ``Reader.check_keys``."""
    if modality in MODALITIES:
        return []
    return [
        f"modality {modality!r}: expected one of {sorted(MODALITIES)}"
        f"{did_you_mean(modality, MODALITIES)}"
    ]


def band_faults(modality: str, bands: BandKeys) -> list[str]:
    """What is wrong with the key ``bands``, which must give each band of a sensor once.

    Nothing where there is no such sensor: ``modality_faults`` says so.
    """
    if modality not in MODALITIES:
        return []
    return key_faults(bands, MODALITIES[modality])


def date_faults(date: str, accuracy: str) -> list[str]:
    """What is wrong with the keys ``date`` and ``date_accuracy``; see ``Reader.check_keys``."""
    faults = []
    try:
        day = day_of_text(date)
        sound = datetime.strptime(day, "%Y-%m-%d").strftime("%Y-%m-%d") == day
    except ValueError:
        sound = False
    if not sound:
        faults.append(f"date {date!r}: expected YYYY-MM-DD")
    if accuracy not in ACCURACIES:
        faults.append(
            f"date_accuracy {accuracy!r}: expected one of {list(ACCURACIES)}"
            f"{did_you_mean(accuracy, ACCURACIES)}"
        )
    return faults


@cache
def crs_faults(crs: str) -> list[str]:
    """What is wrong with the text of a CRS; empty text leaves it to the file."""
    if not crs:
        return []
    try:
        known = has_place(crs_of_text(crs))
    except (CRSError, ValueError):
        known = False
    if known:
        return []
    return [f"crs {crs[:60]!r}: expected a projected or geographic CRS, such as EPSG:32631 or WKT"]


def source_record(name: str, accuracy: str) -> str:
    """What a tile records of a source: its file, and how far its date can be trusted."""
    if accuracy == "day":
        return name
    return f"{name} (date accuracy: {accuracy})"


@dataclass(kw_only=True)
class Layer:
    """Some bands of a sensor on one pixel grid. Bands of other pixel sizes are other layers."""

    bands: tuple[str, ...]
    array: np.ndarray  # (T, C, H, W)
    valid: np.ndarray  # (T, H, W) bool
    georeference: Georeference

    def keep(self, frames: Sequence[int]) -> "Layer":
        """The frames of these positions, in the given order."""
        positions = list(frames)
        return replace(self, array=self.array[positions], valid=self.valid[positions])


def join_layers(layers: list[Layer], sensor: Modality, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Bring all bands of a sensor onto the sensor's pixels of the grid.

    Args:
        layers: they hold each band of the sensor once.
        sensor: the sensor.
        grid: the tile's grid.

    Returns:
        The bands (T, C, h, h) in registry order, and the mask (T, h, h), true where every layer is
        valid and the sensor observed something.
    """
    bands: dict[str, np.ndarray] = {}
    masks = []
    for layer in layers:
        array, valid = resample(
            layer.array, layer.valid, layer.georeference, grid, pixels=sensor.pixels
        )
        bands.update(zip(layer.bands, np.moveaxis(array, 1, 0)))  # T h h each
        masks.append(valid)
    array = np.stack([bands[band] for band in sensor.bands], axis=1)  # T C h h
    array = array.astype(sensor.dtype, copy=False)
    return array, np.logical_and.reduce(masks) & observed(array, sensor)
