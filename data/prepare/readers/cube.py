"""Series as a data cube: NetCDF-4 or zarr, a variable a band, on axes of time, y and x."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.prepare.cf.cube import AxisKeys, Cube, cube_of
from data.prepare.cf.packing import Packing, packing_of
from data.prepare.cf.stacked import with_stacks
from data.prepare.cf.times import iso_days
from data.prepare.cf.variable import Group, Number, Variable
from data.prepare.contract.bands import BandKeys, find_bands
from data.prepare.contract.file_units import check_unit, need_scale_of_all
from data.prepare.contract.files import File, open_hdf5, open_zarr, reading
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import (
    Frames,
    Layer,
    Place,
    Remark,
    band_faults,
    crs_faults,
    date_faults,
    join_layers,
    modality_faults,
)
from data.prepare.place.grid import Grid
from data.prepare.place.resample import resample_labels
from data.prepare.place.window import Window
from data.prepare.readers.rasters import NO_CODE
from data.tiles.modalities import IMAGE, MODALITIES, REFLECTANCE, Modality

NO_FRAMES = Remark("left out, its time axis has no frames")
CORNERS = Remark(
    "x and y are multiples of the pixel size, as corners of this satellite's pixels are; if they "
    "name corners (stackstac without xy_coords='center'), the tile lies half a pixel off: add half "
    "a pixel to x, and take it from y"
)


@dataclass(frozen=True, kw_only=True)
class _Cube(Radiometry, ABC):
    """``scale`` and ``offset`` take the place of the CF attributes; ``nodata`` adds to them."""

    path: File
    modality: str
    bands: BandKeys  # band of the sensor -> its variable, or names that the file knows
    time: str = ""  # as x, y and crs: empty for what the file says
    x: str = ""
    y: str = ""
    crs: str = ""
    mask: str = ""  # a variable of codes
    masked: tuple[int, ...] = ()  # the codes that hide a pixel
    date: str = ""  # or a time, of the one frame of a file without an axis of times

    def check_keys(self) -> list[str]:
        """Modality, bands, numbers, mask, CRS, date."""
        faults = [
            *modality_faults(self.modality),
            *band_faults(self.modality, self.bands),
            *self.number_faults(self.modality),
            *crs_faults(self.crs),
        ]
        if (not self.mask) != (not self.masked):
            faults.append(
                "mask and masked need each other: a variable of codes, and those that hide"
            )
        if self.date:
            faults += date_faults(self.date, "day")
        if self.date and self.time:
            faults.append("date and time: expected one of them, the day of a frame or an axis")
        return faults

    def check(self) -> None:
        """Variables there and on the same axes, CRS, dates, numbers that fit."""
        sensor = MODALITIES[self.modality]
        with self._bands_apart() as group:
            variables = self._variables(group)
            cube = self._cube(group)
            self._times(cube)
            check_numbers_of(cube, variables, sensor, self)
            if self.mask:
                check_codes(cube.variable(self.mask, may_stand_still=True))

    def place(self) -> Place:
        """The cube's pixels, as if its rows ran south."""
        with self._bands_apart() as group:
            cube = self._cube(group)
        return Place(self.modality, cube.georeference, cube.shape)

    def read(self, grid: Grid) -> list[Frames | Remark]:
        """One series of the frames whose time is known."""
        sensor = MODALITIES[self.modality]
        with self._bands_apart() as group:
            cube = self._cube(group)
            window = Place(None, cube.georeference, cube.shape).window(grid)
            times = self._times(cube)
            frames = list(times)
            if not frames:
                return [NO_FRAMES]
            if window is None:
                return []
            layer = layer_of(cube, self._variables(group), window, sensor, self).keep(frames)
            array, valid = join_layers([layer], sensor, grid)
            if self.mask:
                mask = cube.variable(self.mask, may_stand_still=True)
                codes = codes_on_grid(cube, mask, window, grid, pixels=sensor.pixels)  # T h h
                if len(codes) > 1:
                    codes = codes[frames]
                valid &= ~is_hidden(mask, codes, self.masked)
            source = self.path.name
            if not self.date:
                source += frames_left_out(cube)
            remarks = []
            if cube.may_have_corners and sensor.catalogue.platforms:
                remarks.append(CORNERS)
        series = Frames(
            modality=self.modality,
            array=array,
            valid=valid,
            dates=iso_days(times.values()),
            source=source,
            times=list(times.values()),
        )
        return [series.in_time_order([time.isoformat() for time in times.values()]), *remarks]

    @abstractmethod
    def _open(self) -> AbstractContextManager[Group]:
        """The file's group of variables, open."""

    @contextmanager
    def _bands_apart(self) -> Iterator[Group]:
        """The open file, with the bands of a stack as variables where the manifest means these."""
        with self._open() as group:
            names: list[str] = []
            if isinstance(self.bands, dict):
                names = [str(name) for name in self.bands.values()]
            with reading(self.path, "a group of variables"):
                is_plain = bool(names) and all(name in group for name in names)
            yield group if is_plain else with_stacks(self.path, group)

    def _cube(self, group: Group) -> Cube:
        time = None if self.date else self.time
        keys = AxisKeys(time=time, x=self.x, y=self.y, crs=self.crs)
        return cube_of(self.path, group, list(self._variables(group).values()), keys)

    def _times(self, cube: Cube) -> dict[int, datetime]:
        """The time of each frame that has one, by its number; midnight for a day."""
        if self.date:
            return {0: datetime.fromisoformat(self.date)}
        return cube.times()

    def _variables(self, group: Group) -> dict[str, str]:
        """Band of the sensor -> the name of its variable."""
        names: list[str] = []
        if isinstance(self.bands, dict):
            names = list(dict.fromkeys(str(name) for name in self.bands.values()))
        with reading(self.path, "a group of variables"):
            if not names or not all(name in group for name in names):
                names = list(group)  # which not every remote store can list
        sensor = MODALITIES[self.modality]
        positions = find_bands(self.bands, names, sensor, where=self.path, ordered=False)
        return {band: names[position] for band, position in positions.items()}


@dataclass(frozen=True, kw_only=True)
class NetcdfCube(_Cube):
    """NetCDF-4, which is HDF5."""

    path: Path

    def _open(self) -> AbstractContextManager[Group]:
        return open_hdf5(self.path)


@dataclass(frozen=True, kw_only=True)
class ZarrCube(_Cube):
    """A zarr group, format 2 or 3, in a folder or at a URL."""

    def _open(self) -> AbstractContextManager[Group]:
        return open_zarr(self.path)


def numbers_of(
    variable: Variable, sensor: Modality, keys: Radiometry
) -> tuple[Radiometry, Packing]:
    """How the numbers of a band are read: the keys, and the attributes where they say nothing.

    Args:
        variable: the band.
        sensor: its sensor.
        keys: what the manifest says.

    Raises:
        InputError: attributes that cannot be read, an offset without a scale, or another unit than
            the keys say.
    """
    check_unit(variable.text("units"), keys, sensor, where=variable.where)
    # Bytes have no spare number for what was never written: 0 is black.
    packing = packing_of(variable, unwritten=sensor.key != IMAGE)
    if keys.scale is not None:
        return keys, packing
    if keys.offset:
        raise InputError(f"{variable.where}: offset {keys.offset} without a scale; give both")
    scale = packing.scale
    if scale is None and packing.offset:
        if sensor.unit == REFLECTANCE:
            raise InputError(
                f"{variable.where}: attribute add_offset {packing.offset:g} without scale_factor; "
                "give the keys scale and offset"
            )
        scale = 1.0
    radiometry = Radiometry(
        scale=scale, offset=packing.offset, units=keys.units, nodata=keys.nodata
    )
    return radiometry, packing


def check_numbers_of(cube: Cube, names: dict[str, str], sensor: Modality, keys: Radiometry) -> None:
    """Check that the numbers of all bands can be read, and in one way.

    Args:
        cube: the open file.
        names: band of the sensor -> its variable.
        sensor: the sensor.
        keys: what the manifest says of the numbers.

    Raises:
        InputError: see ``numbers_of`` and ``need_scale_of_all``.
    """
    numbers = {}
    for band, name in names.items():
        variable = cube.variable(name)
        radiometry, packing = numbers_of(variable, sensor, keys)
        radiometry.check_numbers(variable.where, sensor, packing.dtype)
        numbers[band] = radiometry
    need_scale_of_all(numbers, dict.fromkeys(numbers, keys), sensor, where=cube.path)


def layer_of(
    cube: Cube, names: dict[str, str], window: Window, sensor: Modality, keys: Radiometry
) -> Layer:
    """Bands of all frames in a window, in the units of the archive, 0 where a pixel is missing.

    Args:
        cube: the open file.
        names: band of the sensor -> its variable.
        window: the pixels that are read.
        sensor: the sensor.
        keys: what the manifest says of the numbers.
    """
    raws = []
    fills: list[Number | None] = []
    in_range = np.ones((), bool)
    for name in names.values():
        variable = cube.variable(name)
        packing = numbers_of(variable, sensor, keys)[1]
        raw = packing.as_stored(cube.read(variable, window))  # T H W
        present = packing.present(raw)  # T H W
        if packing.missing:  # one number for all that means no observation
            fills.append(packing.missing[0])
            raw = np.where(present, raw, packing.missing[0])
        else:
            fills.append(None)
            in_range = in_range & present
        raws.append(raw)
    valid = keys.observed(np.stack(raws, axis=1), sensor, file_nodata=fills) & in_range  # T H W
    bands = []
    for name, raw in zip(names.values(), raws):
        variable = cube.variable(name)
        radiometry = numbers_of(variable, sensor, keys)[0]
        band, valid = radiometry.convert(raw[:, None], valid, sensor, where=variable.where)
        bands.append(band)  # T 1 H W
    array = np.concatenate(bands, axis=1)  # T C H W
    array = np.where(valid[:, None], array, np.zeros((), array.dtype))
    return Layer(bands=tuple(names), array=array, valid=valid, georeference=window.georeference)


def check_codes(variable: Variable) -> None:
    """Raise InputError unless a variable holds codes, or bits of which each means one thing."""
    packing_of(variable)
    if variable.numbers("flag_masks") and variable.numbers("flag_values"):
        raise InputError(
            f"{variable.where}: attributes flag_masks and flag_values: several codes in one "
            "number; write the one that is meant as a variable of its own"
        )


def is_hidden(variable: Variable, codes: np.ndarray, masked: tuple[int, ...]) -> np.ndarray:
    """Where codes hide a pixel, bool of the same shape: one of ``masked``, or no code.

    With the attribute flag_masks a number holds several flags, and each of ``masked`` is a flag.
    """
    if not variable.numbers("flag_masks"):
        return np.isin(codes, (*masked, NO_CODE))
    hidden = codes == NO_CODE
    for flag in masked:
        hidden |= (codes & flag) == flag
    return hidden


def codes_of(cube: Cube, variable: Variable, window: Window) -> np.ndarray:
    """Whole numbers of a variable (T, H, W), int32; ``NO_CODE`` where it has none."""
    codes = packing_of(variable).unpacked(cube.read(variable, window))  # T H W
    is_code = (codes == np.rint(codes)) & (np.abs(codes) <= np.iinfo(np.int32).max)  # not NaN
    return np.where(is_code, codes, NO_CODE).astype(np.int32)


def codes_on_grid(
    cube: Cube, variable: Variable, window: Window, grid: Grid, *, pixels: int
) -> np.ndarray:
    """The same on a grid, (T, h, h), by nearest neighbour; ``NO_CODE`` outside the cube."""
    frames = []
    for frame in codes_of(cube, variable, window):
        frames.append(
            resample_labels(frame, window.georeference, grid, pixels=pixels, fill=NO_CODE)
        )
    return np.stack(frames)


def frames_left_out(cube: Cube) -> str:
    """What a tile records of the frames without a time; empty when all have one."""
    missing = cube.frames - len(cube.times())
    if not missing:
        return ""
    return f" (without {missing} of {cube.frames} frames, whose time is missing)"
