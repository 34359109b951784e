"""The small interface that every reader has, and what it returns."""

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from data.errors import InputError
from data.prepare.grid import Grid

ACCURACIES = ("day", "year", "unknown")  # year: July 1st stands for it; unknown: the date is a stand-in


@dataclass
class Frames:
    """A georeferenced series of one sensor, on the source's own pixels."""

    modality: str
    array: np.ndarray  # (T, C, H, W), bands in registry order, in the units that the archive stores
    valid: np.ndarray  # (T, H, W) bool
    dates: list[str]  # ISO day of each frame
    transform: Affine | None  # None: the pixels are the cells of the tile's grid (the file has no georeference)
    crs: CRS | None
    source: str  # where it came from, for the record

    def keep(self, index: np.ndarray | list[int]) -> "Frames":
        """The chosen frames only, in the given order."""
        index = [int(i) for i in index]
        return Frames(self.modality, self.array[index], self.valid[index], [self.dates[i] for i in index],
                      self.transform, self.crs, self.source)


class Labels(Protocol):
    """Dense labels that can be drawn on any grid."""

    source: str

    def draw(self, grid: Grid) -> np.ndarray:
        """uint8 class indices (8n, 8n) at 1.25 m, 255 where unlabelled."""


class Reader(Protocol):
    """One source of a tile. The dataclass fields of an implementation are its keys in the manifest: ``Path`` and
    ``tuple[Path, ...]`` fields name files relative to the manifest."""

    def check(self) -> None:
        """Look at headers only. Raises InputError for what can never work (bands, CRS, not such a file)."""

    def read(self) -> list[Frames | Labels]:
        """Everything the source holds."""


@contextmanager
def open_raster(path: Path):
    """An open rasterio dataset; InputError when rasterio cannot read the file."""
    try:
        dataset = rasterio.open(path)
    except RasterioError as error:
        raise InputError(f"{path}: expected a raster file, rasterio says: {error}") from None
    with dataset:
        yield dataset


def need_crs(path: Path, crs: CRS | None) -> CRS:
    """The CRS, or InputError for a raster that does not say where it is."""
    if not usable(crs):
        raise InputError(f"{path}: expected a projected or geographic CRS, found {crs}; georeference the file first")
    return crs


def need_north_up(path: Path, transform: Affine) -> None:
    """InputError for rotated or upside-down pixels, which no reader here turns."""
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise InputError(f"{path}: expected north-up pixels, found the transform {tuple(transform)[:6]}; warp it first")


def check_date(path: Path, date: str, accuracy: str) -> None:
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
    """Whether coordinates can be transformed from ``crs``: false for none and for a local (engineering) CRS."""
    return crs is not None and (crs.is_projected or crs.is_geographic)
