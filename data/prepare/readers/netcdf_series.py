"""NetCDF series on 10 and 20 m pixels, and land-cover rasters.

This is the layout of the WorldCereal training patches: Sentinel-2 in two files, Sentinel-1 in one,
labels in another. Axes, numbers and times are those of the CF conventions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.prepare.cf.cube import AxisKeys, Cube, cube_of
from data.prepare.cf.packing import packing_of
from data.prepare.cf.times import iso_days
from data.prepare.cf.variable import Group
from data.prepare.contract.bands import registry_name
from data.prepare.contract.files import open_hdf5, reading
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.sentinel2 import CLOUDY, COARSE_BANDS, FINE_BANDS
from data.prepare.contract.source import Frames, Place, Remark, join_layers
from data.prepare.place.grid import ALIGNED, CELL, Grid, grid_of_pixels
from data.prepare.readers.cube import (
    NO_FRAMES,
    check_codes,
    check_numbers_of,
    codes_of,
    codes_on_grid,
    frames_left_out,
    is_hidden,
    layer_of,
)
from data.prepare.readers.raster_labels import RasterLabels, code_table, map_codes
from data.tiles.modalities import MODALITIES, Modality
from data.tiles.tile import UNLABELLED

CLASSIFICATION = "SCL"
NO_KEYS = Radiometry()
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class NetcdfOptical:
    """Sentinel-2 in two files, whose frames belong together by day."""

    path: Path  # the 10 m bands
    path_20m: Path  # the 20 m bands and the scene classification

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Bands, CRS, times, and 10 and 20 m pixels from one corner."""
        with open_hdf5(self.path) as file:
            fine = _checked(self.path, file, FINE_BANDS, "ms")
        if grid_of_pixels(fine.georeference, fine.shape) is None:
            raise InputError(
                f"{self.path}: expected 10 m pixels in a metric CRS, "
                f"found {fine.x.step:g} m in {fine.crs}"
            )
        with open_hdf5(self.path_20m) as file:
            coarse = _checked(self.path_20m, file, COARSE_BANDS, "ms")
            check_codes(coarse.variable(CLASSIFICATION))
        corner = fine.georeference.transform
        own = coarse.georeference.transform
        drift = max(
            abs(own.c - corner.c),
            abs(own.f - corner.f),
            abs(own.a - 2 * CELL) * coarse.x.length,
            abs(own.e + 2 * CELL) * coarse.y.length,
        )
        if coarse.crs != fine.crs or drift > ALIGNED * CELL:
            raise InputError(
                f"{self.path_20m}: expected 20 m pixels from the same corner as {self.path.name}"
            )

    def place(self) -> Place:
        """The 10 m pixels."""
        with open_hdf5(self.path) as file:
            names = _names(self.path, file, FINE_BANDS, MODALITIES["ms"])
            return _place(_cube(self.path, file, names), "ms")

    def read(self, grid: Grid) -> list[Frames | Remark]:
        """One series of the days that both files have.

        The 20 m bands are interpolated, the classification is repeated.

        Raises:
            InputError: the files have frames, but not one of the same day.
        """
        sensor = MODALITIES["ms"]
        with open_hdf5(self.path) as file, open_hdf5(self.path_20m) as file_20m:
            names = _names(self.path, file, FINE_BANDS, sensor)
            names_20m = _names(self.path_20m, file_20m, COARSE_BANDS, sensor)
            fine = _cube(self.path, file, names)
            coarse = _cube(self.path_20m, file_20m, names_20m)
            times = fine.times()
            pairs = self._pairs(times, coarse.times())
            left_out = frames_left_out(fine)
            window = _place(fine, None).window(grid)
            window_20m = _place(coarse, None).window(grid)
            if not pairs:
                return [NO_FRAMES]
            if window is None or window_20m is None:
                return []
            frames = [frame for frame, _ in pairs]
            frames_20m = [frame for _, frame in pairs]
            layers = [
                layer_of(fine, names, window, sensor, NO_KEYS).keep(frames),
                layer_of(coarse, names_20m, window_20m, sensor, NO_KEYS).keep(frames_20m),
            ]
            scene = coarse.variable(CLASSIFICATION)
            codes = codes_on_grid(coarse, scene, window_20m, grid, pixels=sensor.pixels)
            hidden = is_hidden(scene, codes[frames_20m], CLOUDY)  # T n n
        array, valid = join_layers(layers, sensor, grid)  # T 10 n n, T n n
        known = [times[frame] for frame in frames]
        series = Frames(
            modality="ms",
            array=array,
            valid=valid & ~hidden,
            dates=iso_days(known),
            source=f"{self.path.name}, {self.path_20m.name}{left_out}",
            times=known,
        )
        return [series]

    def _pairs(
        self, times: dict[int, datetime], times_20m: dict[int, datetime]
    ) -> list[tuple[int, int]]:
        """Frames of both files that belong together, in time order.

        Raises:
            InputError: there are frames in both, but no two that belong together.
        """
        pairs = pairs_of(times, times_20m)
        if times and times_20m and not pairs:
            raise InputError(
                f"{self.path}: no frame is of the same day as one of {self.path_20m.name}: "
                f"{_days(times)} and {_days(times_20m)}"
            )
        return pairs


@dataclass(frozen=True)
class NetcdfSar:
    """Sentinel-1: VV and VH in dB; packed, 0 means no observation."""

    path: Path

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Both polarisations, times and a CRS."""
        with open_hdf5(self.path) as file:
            _checked(self.path, file, MODALITIES["sar"].bands, "sar")

    def place(self) -> Place:
        """The file's pixels."""
        with open_hdf5(self.path) as file:
            sensor = MODALITIES["sar"]
            names = _names(self.path, file, sensor.bands, sensor)
            return _place(_cube(self.path, file, names), "sar")

    def read(self, grid: Grid) -> list[Frames | Remark]:
        """One series."""
        sensor = MODALITIES["sar"]
        with open_hdf5(self.path) as file:
            names = _names(self.path, file, sensor.bands, sensor)
            cube = _cube(self.path, file, names)
            times = cube.times()
            frames = list(times)
            left_out = frames_left_out(cube)
            window = _place(cube, None).window(grid)
            if not frames:
                return [NO_FRAMES]
            if window is None:
                return []
            keys = Radiometry(nodata=0)
            layer = layer_of(cube, names, window, sensor, keys).keep(frames)
        array, valid = join_layers([layer], sensor, grid)
        series = Frames(
            modality="sar",
            array=array,
            valid=valid,
            dates=iso_days(times.values()),
            source=f"{self.path.name}{left_out}",
            times=list(times.values()),
        )
        return [series.in_time_order([time.isoformat() for time in times.values()])]


@dataclass(frozen=True)
class NetcdfLabels:
    """Land cover ``LC``, refined by crop type ``CT`` where that has a class of its own."""

    path: Path

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Both code rasters and a CRS."""
        with open_hdf5(self.path) as file:
            cube = self._cube(file)
            packing_of(cube.variable("LC"))
            packing_of(cube.variable("CT"))

    def place(self) -> Place:
        """The file's pixels."""
        with open_hdf5(self.path) as file:
            return _place(self._cube(file), None)

    def read(self, grid: Grid) -> list[RasterLabels]:
        """One RasterLabels."""
        with open_hdf5(self.path) as file:
            cube = self._cube(file)
            window = _place(cube, None).window(grid)
            if window is None:
                return []
            (cover,) = codes_of(cube, cube.variable("LC"), window)  # H W
            (crop,) = codes_of(cube, cube.variable("CT"), window)  # H W
        cover = map_codes(cover, code_table("worldcereal_lc"))
        crop = map_codes(crop, code_table("worldcereal_ct"))
        classes = np.where(crop == UNLABELLED, cover, crop)
        return [RasterLabels(classes, window.georeference, self.path.name)]

    def _cube(self, file: Group) -> Cube:
        return cube_of(self.path, file, ("LC", "CT"), AxisKeys(time=None))


def pairs_of(
    times: Mapping[int, datetime], others: Mapping[int, datetime]
) -> list[tuple[int, int]]:
    """Frames whose times are each other's nearest, in time order.

    The two must be of one day, or less than a minute apart: two files of one acquisition may take
    their time from different records.

    Args:
        times: by frame, of one file.
        others: by frame, of the other.
    """
    pairs = []
    for frame in sorted(times, key=times.__getitem__):
        other = _nearest(times[frame], others)
        if other is None or _nearest(others[other], times) != frame:
            continue
        is_same_day = others[other].date() == times[frame].date()
        if is_same_day or abs(others[other] - times[frame]) < MINUTE:
            pairs.append((frame, other))
    return pairs


def _nearest(time: datetime, others: Mapping[int, datetime]) -> int | None:
    """The frame of the nearest time, the first of equals; None if there is none."""
    distances = {frame: abs(other - time) for frame, other in others.items()}
    return min(distances, key=distances.__getitem__, default=None)


def _cube(path: Path, file: Group, names: Mapping[str, str]) -> Cube:
    """The cube of some bands' variables."""
    return cube_of(path, file, list(names.values()), AxisKeys())


def _checked(path: Path, file: Group, bands: Sequence[str], modality: str) -> Cube:
    """The cube of some bands, whose numbers and times can be read."""
    sensor = MODALITIES[modality]
    names = _names(path, file, bands, sensor)
    cube = _cube(path, file, names)
    cube.times()
    check_numbers_of(cube, names, sensor, NO_KEYS)
    return cube


def _place(cube: Cube, modality: str | None) -> Place:
    return Place(modality, cube.georeference, cube.shape)


def _names(path: Path, file: Group, bands: Sequence[str], sensor: Modality) -> dict[str, str]:
    """Band -> its variable, which has the band's name or the only other name for it."""
    with reading(path, "a list of variables"):
        variables = list(file)
    names = {}
    for band in bands:
        names[band] = band
        others = [name for name in variables if registry_name(name, sensor) == band]
        if band not in variables and len(others) == 1:
            names[band] = others[0]
    return names


def _days(times: Mapping[int, datetime]) -> str:
    """First and last day, for errors."""
    if not times:
        return "no times"
    days = sorted(iso_days(times.values()))
    return f"{days[0]} to {days[-1]}"
