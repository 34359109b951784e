"""HDF5 file of Sentinel-2 and Sentinel-1 series over one small place, without georeference (the
TreeSatAI layout).

The file's pixels are the cells of the tile's grid, which another source of the tile must give.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from data.errors import InputError
from data.prepare.contract.faults import clear_sky, sar_to_db
from data.prepare.contract.grid import Grid
from data.prepare.contract.source import Frames, need_file, reading
from data.tiles.modalities import MODALITIES, observed

ORBITS = ("asc", "des")
DAY = re.compile(
    r"_(\d{4})(\d{2})(\d{2})T(\d{6})"
)  # the first time stamp of a product name is the sensing start


@dataclass(frozen=True)
class Hdf5Series:
    """``sen-2-data`` T 10 h w (reflectance x 1e4), ``sen-2-masks`` (snow, cloud: percent),
    ``sen-1-{asc,des}-data`` T 2 h w (VV, VH as linear power), each with ``-products`` names that
    hold the exact dates."""

    path: Path

    def check(self) -> None:
        """Datasets there, band counts, one product name a frame."""
        with open_hdf5(self.path) as file:
            expected = {"sen-2": 10, **{f"sen-1-{orbit}": 2 for orbit in ORBITS}}
            for name, bands in expected.items():
                data, products = (
                    need(file, f"{name}-data", self.path),
                    need(file, f"{name}-products", self.path),
                )
                if data.ndim != 4 or data.shape[1] != bands:
                    raise InputError(
                        f"{self.path}: {name}-data: expected T x {bands} x h x w, found {data.shape}"
                    )
                if len(products) != len(data):
                    raise InputError(
                        f"{self.path}: {name}: {len(data)} frames but {len(products)} product names"
                    )
            masks, optical = need(file, "sen-2-masks", self.path), file["sen-2-data"]
            if masks.ndim != 4 or masks.shape[1] < 2 or len(masks) != len(optical):
                raise InputError(
                    f"{self.path}: sen-2-masks: expected {len(optical)} x (snow, cloud) x h x w, found "
                    f"{masks.shape}"
                )

    def place(self) -> None:
        """The file does not say."""

    def read(self, grid: Grid) -> list[Frames]:
        """The optical series, and both orbits' SAR joined in time order; InputError unless the
        file's pixels are as many as the grid's cells."""
        with open_hdf5(self.path) as file:
            optical = file["sen-2-data"][:]
            masks = file["sen-2-masks"][:, :2]
            days = [sensing_time(name, self.path) for name in file["sen-2-products"][:]]
            power = np.concatenate([file[f"sen-1-{orbit}-data"][:] for orbit in ORBITS])
            times = [
                sensing_time(name, self.path)
                for orbit in ORBITS
                for name in file[f"sen-1-{orbit}-products"][:]
            ]
        for name, array in (("sen-2", optical), ("sen-1", power)):
            if array.shape[2:] != (grid.cells, grid.cells):
                raise InputError(
                    f"{self.path}: {name}-data has no georeference and {array.shape[2:]} pixels; expected "
                    f"the tile's {(grid.cells, grid.cells)}"
                )
        sensor = MODALITIES["ms"]
        reflectance = np.clip(np.rint(np.nan_to_num(optical)), 0, 65535).astype(sensor.dtype)
        valid = clear_sky(reflectance, snow=masks[:, 0], cloud=masks[:, 1]) & observed(
            reflectance, sensor
        )
        series = []
        for modality, array, mask, stamps in (
            ("ms", reflectance, valid, days),
            ("sar", *sar_to_db(power), times),
        ):
            order = sorted(range(len(stamps)), key=stamps.__getitem__)
            days = [stamp[:10] for stamp in stamps]
            series.append(Frames(modality, array, mask, days, self.path.name).keep(order))
        return [frames for frames in series if frames.dates]


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An open h5py file; InputError when it is not there, is none, or proves damaged in reading."""
    need_file(path)
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        yield file


def need(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset that must be there."""
    if not isinstance(file.get(name), h5py.Dataset):
        raise InputError(f"{path}: expected the dataset {name!r}, found only {sorted(file)}")
    return file[name]


def sensing_time(product: bytes, path: Path) -> str:
    """Sentinel product name -> 'YYYY-MM-DDTHHMMSS', sortable."""
    match = DAY.search(bytes(product).decode("ascii", "replace"))
    if not match:
        raise InputError(
            f"{path}: expected a Sentinel product name with its sensing time, found {product!r}"
        )
    year, month, day, clock = match.groups()
    return f"{year}-{month}-{day}T{clock}"
