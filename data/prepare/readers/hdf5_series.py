"""HDF5 file of Sentinel-2 and Sentinel-1 series over one small place (the TreeSatAI layout).

It has no georeference. Its pixels are the cells of the tile's grid, which another source of the
tile must give.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np

from data.errors import InputError
from data.prepare.cf.packing import packing_of
from data.prepare.cf.variable import need_variable, text_of
from data.prepare.contract.faults import clear_sky, sar_to_db
from data.prepare.contract.files import need_dataset, open_hdf5
from data.prepare.contract.radiometry import REFLECTANCE_UNIT, Radiometry
from data.prepare.contract.source import Frames, Remark
from data.prepare.place.grid import Grid
from data.prepare.readers.cube import numbers_of
from data.tiles.modalities import MODALITIES, observed

OPTICAL = "sen-2"
SAR = ("sen-1-asc", "sen-1-des")  # ascending and descending orbits
BANDS = {OPTICAL: 10, "sen-1-asc": 2, "sen-1-des": 2}
# The first time stamp of a product name is the start of sensing.
SENSING_TIME = re.compile(r"_(\d{4})(\d{2})(\d{2})T(\d{6})")
TIME_FORM = "%Y-%m-%dT%H%M%S"


@dataclass(frozen=True)
class Hdf5Series:
    """An optical series and the SAR series of both orbits.

    ``sen-2-data`` is T x 10 x h x w (reflectance x 1e4), ``sen-2-masks`` holds snow and cloud in
    percent, ``sen-1-{asc,des}-data`` is T x 2 x h x w (VV and VH as linear power). Each series has
    ``-products``, names that hold the exact dates.
    """

    path: Path

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Datasets there, band counts, one product name a frame."""
        with open_hdf5(self.path) as file:
            for name, bands in BANDS.items():
                self._check_series(file, name, bands)
            self._check_masks(file)
            numbers_of(
                need_variable(self.path, file, f"{OPTICAL}-data"), MODALITIES["ms"], Radiometry()
            )
            for name in ("sen-2-masks", *[f"{orbit}-data" for orbit in SAR]):
                packing_of(need_variable(self.path, file, name))

    def _check_masks(self, file: h5py.File) -> None:
        masks = need_dataset(file, "sen-2-masks")
        frames, _, *sides = file[f"{OPTICAL}-data"].shape
        sound = masks.ndim == 4 and masks.shape[1] >= 2
        if not sound or len(masks) != frames or masks.shape[2:] != tuple(sides):
            raise InputError(
                f"{self.path}: sen-2-masks: expected {frames} x (snow, cloud) x {sides[0]} x "
                f"{sides[1]}, found {masks.shape}"
            )

    def _check_series(self, file: h5py.File, name: str, bands: int) -> None:
        data = need_dataset(file, f"{name}-data")
        products = need_dataset(file, f"{name}-products")
        if data.ndim != 4 or data.shape[1] != bands:
            raise InputError(
                f"{self.path}: {name}-data: expected T x {bands} x h x w, found {data.shape}"
            )
        if len(products) != len(data):
            raise InputError(
                f"{self.path}: {name}: {len(data)} frames but {len(products)} product names"
            )

    def place(self) -> None:
        """The file does not say."""

    def read(self, grid: Grid) -> list[Frames | Remark]:
        """The optical series, and the SAR of both orbits joined in time order.

        Raises:
            InputError: the file has not as many pixels as the grid has cells.
        """
        with open_hdf5(self.path) as file:
            optical = self._reflectance(file)  # T 10 n n
            masks = self._numbers(file, "sen-2-masks")[:, :2]  # T 2 n n
            optical_times = self._times(file, OPTICAL)
            orbits = [self._numbers(file, f"{orbit}-data") for orbit in SAR]
            power = np.concatenate(orbits)  # T 2 n n
            sar_times = []
            for orbit in SAR:
                sar_times += self._times(file, orbit)
        self._check_size("sen-2", optical, grid)
        self._check_size("sen-1", power, grid)
        series = [
            self._optical_frames(optical, masks, optical_times),
            self._sar_frames(power, sar_times),
        ]
        items: list[Frames | Remark] = []
        for frames in series:
            if frames.dates:
                items.append(frames)
            else:
                items.append(Remark(f"{frames.modality} has no frames"))
        return items

    def _numbers(self, file: h5py.File, name: str) -> np.ndarray:
        """What a dataset means, float64, NaN where it says that there is no observation."""
        variable = need_variable(self.path, file, name)
        return packing_of(variable).unpacked(variable.read())

    def _reflectance(self, file: h5py.File) -> np.ndarray:
        """The optical series as reflectance x 1e4, not finite where there is no observation."""
        variable = need_variable(self.path, file, f"{OPTICAL}-data")
        radiometry, packing = numbers_of(variable, MODALITIES["ms"], Radiometry())
        numbers = packing.unpacked(variable.read())  # T 10 n n
        if radiometry.scale is not None:
            return numbers / REFLECTANCE_UNIT
        return numbers

    def _times(self, file: h5py.File, name: str) -> list[str]:
        """The sensing time of each frame of a series."""
        return [sensing_time(product, self.path) for product in file[f"{name}-products"][:]]

    def _check_size(self, name: str, array: np.ndarray, grid: Grid) -> None:
        if array.shape[2:] != (grid.cells, grid.cells):
            raise InputError(
                f"{self.path}: {name}-data has no georeference and {array.shape[2:]} pixels; "
                f"expected the tile's {(grid.cells, grid.cells)}"
            )

    def _optical_frames(self, optical: np.ndarray, masks: np.ndarray, times: list[str]) -> Frames:
        sensor = MODALITIES["ms"]
        known = np.where(np.isfinite(optical), optical, 0)  # T 10 n n
        reflectance = np.clip(np.rint(known), 0, 65535).astype(sensor.dtype)
        # Less than 0 per cent is a number for no observation, which no attribute names.
        percent = np.where(masks >= 0, masks, np.nan)  # T 2 n n
        valid = clear_sky(reflectance, snow=percent[:, 0], cloud=percent[:, 1])  # T n n
        valid &= observed(reflectance, sensor)
        return self._frames("ms", reflectance, valid, times=times)

    def _sar_frames(self, power: np.ndarray, times: list[str]) -> Frames:
        decibel, valid = sar_to_db(power)
        return self._frames("sar", decibel, valid, times=times)

    def _frames(
        self, modality: str, array: np.ndarray, valid: np.ndarray, *, times: list[str]
    ) -> Frames:
        """A series in time order."""
        frames = Frames(
            modality=modality,
            array=array,
            valid=valid,
            dates=[time[:10] for time in times],
            source=self.path.name,
            times=[datetime.strptime(time, TIME_FORM) for time in times],
        )
        return frames.in_time_order(times)


def sensing_time(product: object, path: Path) -> str:
    """The time in the name of a Sentinel product, as sortable 'YYYY-MM-DDTHHMMSS'.

    Raises:
        InputError: the name, found in the file at ``path``, has no time.
    """
    match = SENSING_TIME.search(text_of(product))
    if match:
        year, month, day, clock = match.groups()
        time = f"{year}-{month}-{day}T{clock}"
        if _is_time(time):
            return time
    raise InputError(
        f"{path}: expected a Sentinel product name with its sensing time, found {product!r}"
    )


def _is_time(text: str) -> bool:
    """Whether digits are a day of the calendar and a time of day."""
    try:
        datetime.strptime(text, TIME_FORM)
    except ValueError:
        return False
    return True
