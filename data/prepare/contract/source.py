"""The small interface that every reader has, what it returns, and how files are opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.windows import Window as RasterWindow

from data.errors import InputError
from data.prepare.contract.grid import Grid, Window, resample, window_of
from data.tiles.modalities import MODALITIES, Modality, observed

ACCURACIES = (
    "day",
    "year",
    "unknown",
)  # year: July 1st stands for it; unknown: the date is a stand-in


class Remote(str):
    """The address of a file that is not in this file system: a URL, or a path of GDAL's
    (/vsicurl/...)."""

    @property
    def name(self) -> str:
        """The last part, as of a Path."""
        return PurePosixPath(self).name


File = Path | Remote


@dataclass(frozen=True)
class Place:
    """Where a source's pixels lie, known from headers alone."""

    modality: str | None  # None: labels, which never give a tile its grid
    transform: Affine
    crs: CRS
    shape: tuple[int, int]  # h, w

    def window(self, grid: Grid) -> Window | None:
        """The pixels that ``grid`` needs; None when the source does not touch it."""
        return window_of(self.transform, self.crs, self.shape, grid)


@dataclass
class Frames:
    """A series of one sensor on the pixels of the grid that it was read for."""

    modality: str
    array: np.ndarray  # (T, C, h, h), bands in registry order, in the units that the archive stores
    valid: np.ndarray  # (T, h, h) bool
    dates: list[str]  # ISO day of each frame
    source: str  # where it came from, for the record

    def keep(self, index: np.ndarray | list[int]) -> "Frames":
        """The chosen frames only, in the given order."""
        index = [int(i) for i in index]
        return Frames(
            self.modality,
            self.array[index],
            self.valid[index],
            [self.dates[i] for i in index],
            self.source,
        )


class Labels(Protocol):
    """Dense labels that can be drawn on the grid that they were read for."""

    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """uint8 class indices (8n, 8n) at 1.25 m, 255 where unlabelled."""


class Reader(Protocol):
    """One source of a tile. The dataclass fields of an implementation are its keys in the manifest:
    ``File`` and ``Path`` fields, tuples and dicts of them, name files relative to the manifest. All
    three methods raise InputError with the path for a file that is missing, damaged or not as
    expected."""

    def check(self) -> None:
        """Look at headers only. Raises InputError for what can never work (bands, CRS, not such a
        file)."""

    def place(self) -> Place | None:
        """Where the pixels lie; None when the file does not say (or holds shapes, which have no
        pixels)."""

    def read(self, grid: Grid) -> list[Frames | Labels]:
        """What the source holds over ``grid``, read no further than that needs; empty when it does
        not touch it."""


def files_of(reader: Reader) -> list[File]:
    """Every file that a reader names, in the order of its fields."""
    found = []
    for field in fields(reader):
        value = getattr(reader, field.name)
        parts = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, tuple)
            else [value]
        )
        found += [part for part in parts if isinstance(part, File)]
    return found


@contextmanager
def reading(path: File, kind: str) -> Iterator[None]:
    """Turn what a library raises over a file into an InputError. Only calls into the library belong
    inside."""
    try:
        yield
    except InputError:
        raise
    except (
        RasterioError,
        CRSError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:
        said = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise InputError(
            f"{path}: expected {kind}, found a damaged or other file ({said})"
        ) from error


@contextmanager
def open_raster(path: File) -> Iterator[rasterio.DatasetReader]:
    """An open rasterio dataset; InputError when the file is not there, is no raster, or proves
    damaged in reading."""
    need_file(path)
    with reading(path, "a raster file"), rasterio.open(path) as dataset:
        yield dataset


def pixels_of(window: Window) -> RasterWindow:
    """The window as rasterio wants it."""
    return RasterWindow.from_slices(window.rows, window.columns)


def need_file(path: File) -> None:
    """InputError unless the file is there; of a remote one opening tells."""
    if isinstance(path, Path) and not path.exists():
        raise InputError(f"no file {path}; paths are relative to the manifest")


def need_crs(path: File, crs: CRS | None) -> CRS:
    """The CRS, or InputError for a raster that does not say where it is."""
    if not usable(crs):
        raise InputError(
            f"{path}: expected a projected or geographic CRS, found {crs}; georeference the file first"
        )
    return crs


def need_north_up(path: File, transform: Affine) -> None:
    """InputError for rotated or upside-down pixels, which no reader here turns."""
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise InputError(
            f"{path}: expected north-up pixels, found the transform {tuple(transform)[:6]}; warp it first"
        )


def need_modality(path: File, modality: str, bands: tuple[str, ...]) -> Modality:
    """The sensor; InputError when it is unknown or lacks one of its bands."""
    if modality not in MODALITIES:
        raise InputError(f"{path}: modality {modality!r}: expected one of {sorted(MODALITIES)}")
    missing = [band for band in MODALITIES[modality].bands if band not in bands]
    if missing:
        raise InputError(f"{path}: bands {list(bands)} lack {missing} of {modality}")
    return MODALITIES[modality]


def check_date(path: File, date: str, accuracy: str) -> None:
    """InputError unless ``date`` is an ISO day and ``accuracy`` one of ACCURACIES."""
    try:
        sound = datetime.strptime(date, "%Y-%m-%d").strftime("%Y-%m-%d") == date
    except ValueError:
        sound = False
    if not sound:
        raise InputError(f"{path}: date {date!r}: expected YYYY-MM-DD")
    if accuracy not in ACCURACIES:
        raise InputError(f"{path}: date_accuracy {accuracy!r}: expected one of {list(ACCURACIES)}")


def described(name: str, accuracy: str) -> str:
    """A source's record: its file, and how far its date can be trusted."""
    return name if accuracy == "day" else f"{name} (date accuracy: {accuracy})"


def usable(crs: CRS | None) -> bool:
    """Whether coordinates can be transformed from ``crs``: false for none and for a local
    (engineering) CRS."""
    return crs is not None and (crs.is_projected or crs.is_geographic)


@dataclass
class Layer:
    """Some bands of a sensor on one pixel grid. Bands of other pixel sizes are other layers."""

    bands: tuple[str, ...]
    array: np.ndarray  # (T, C, H, W)
    valid: np.ndarray  # (T, H, W)
    transform: Affine
    crs: CRS


def join_layers(layers: list[Layer], sensor: Modality, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """All bands on the grid's pixels of the sensor: (T, C, h, h) in registry order and (T, h, h),
    valid where every layer is."""
    bands, valid = {}, True
    for layer in layers:
        array, seen = resample(
            layer.array, layer.valid, layer.transform, layer.crs, grid, sensor.pixels
        )
        bands |= dict(zip(layer.bands, np.moveaxis(array, 1, 0)))  # T h h each
        valid &= seen
    array = np.stack([bands[band] for band in sensor.bands], axis=1).astype(
        sensor.dtype, copy=False
    )  # T C h h
    return array, valid & observed(array, sensor)
