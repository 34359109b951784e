"""Series as a data cube: NetCDF-4 or zarr, a variable a band, axes time, y, x. Names and numbers
are keys.

Both libraries give arrays with shape, attributes and slices, so one class does the work.
"""

import base64
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import zarr
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from data.errors import InputError
from data.prepare.contract.grid import Grid, Window, resample_labels
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import (
    File,
    Frames,
    Layer,
    Place,
    join_layers,
    need_crs,
    need_file,
    need_modality,
    reading,
)
from data.prepare.readers.hdf5_series import open_hdf5
from data.tiles.modalities import MODALITIES

SECONDS = {
    "day": 86400,
    "hour": 3600,
    "minute": 60,
    "second": 1,
    "millisecond": 1e-3,
    "microsecond": 1e-6,
    "nanosecond": 1e-9,
}
CF_TIME = re.compile(
    r"(day|hour|minute|second|millisecond|microsecond|nanosecond)s? since (\d{1,4}-\d{1,2}-\d{1,2})"
    r"(?:[T ]+(\d{1,2}:\d{2}(?::\d{2})?)(?:\.\d*)?)?(?: ?(?:Z|UTC|[+-]00:?00))?"
)
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
NO_CODE = -1


@dataclass(frozen=True, kw_only=True)
class _Cube(Radiometry, ABC):
    """``bands`` maps each band of the sensor to its variable. ``mask`` is a variable of codes, of
    which ``masked`` hide the pixel. ``scale``, ``offset`` and ``nodata`` stand in for the
    variables' CF attributes."""

    path: File
    modality: str
    bands: dict[str, str]
    time: str = "time"
    x: str = "x"
    y: str = "y"
    crs: str = ""  # empty: what the grid mapping of the variables says
    mask: str = ""
    masked: tuple[int, ...] = ()

    def check(self) -> None:
        """Variables there and of one shape, axes, CRS, dates, numbers that fit."""
        sensor = need_modality(self.path, self.modality, tuple(self.bands))
        if (not self.mask) != (not self.masked):
            raise InputError(
                f"{self.path}: mask and masked need each other: a variable of codes, and those that hide"
            )
        with self._open() as cube:
            place, days = self._place(cube), self._days(cube)
            for name in [
                *(self.bands[band] for band in sensor.bands),
                *([self.mask] if self.mask else []),
            ]:
                if self._variable(cube, name).shape != (len(days), *place.shape):
                    raise InputError(
                        f"{self.path}: {name}: expected {self.time} x {self.y} x {self.x} = "
                        f"{(len(days), *place.shape)}, found {self._variable(cube, name).shape}"
                    )
            for band in sensor.bands:
                variable = self._variable(cube, self.bands[band])
                self._numbers(variable).check_numbers(
                    f"{self.path}: {self.bands[band]}", sensor, variable.dtype
                )

    def place(self) -> Place:
        """The cube's pixels, as if its rows ran south."""
        with self._open() as cube:
            return self._place(cube)

    def read(self, grid: Grid) -> list[Frames]:
        """One series."""
        sensor = MODALITIES[self.modality]
        with self._open() as cube:
            place, days = self._place(cube), self._days(cube)
            window = place.window(grid)
            if window is None or not days:
                return []
            rising = self._rising(cube)
            raw = {
                band: self._window(cube, self.bands[band], window, rising) for band in sensor.bands
            }  # T H W each
            numbers = {
                band: self._numbers(self._variable(cube, self.bands[band])) for band in sensor.bands
            }
            codes = self._window(cube, self.mask, window, rising) if self.mask else None
        layers = []
        for band in sensor.bands:
            array, seen = numbers[band].in_units(raw[band][:, None], sensor)  # T 1 H W
            layers.append(Layer((band,), array, seen, window.transform, place.crs))
        array, valid = join_layers(layers, sensor, grid)
        if codes is not None:
            hidden = [
                resample_labels(
                    frame.astype(np.int32),
                    window.transform,
                    place.crs,
                    grid,
                    sensor.pixels,
                    NO_CODE,
                )
                for frame in codes
            ]
            valid &= ~np.isin(np.stack(hidden), (*self.masked, NO_CODE))
        order = sorted(range(len(days)), key=days.__getitem__)
        return [Frames(self.modality, array, valid, days, self.path.name).keep(order)]

    @abstractmethod
    def _open(self) -> AbstractContextManager:
        """The file's group of variables, open."""

    def _variable(self, cube, name: str):
        with reading(self.path, f"a variable {name!r}"):
            variable = cube[name]
            variable.shape  # a group has none
        return variable

    def _window(self, cube, name: str, window: Window, rising: bool) -> np.ndarray:
        """(T, H, W) of a variable, rows from north to south."""
        variable = self._variable(cube, name)
        rows = window.rows
        if rising:
            rows = slice(variable.shape[1] - rows.stop, variable.shape[1] - rows.start)
        part = variable[:, rows, window.columns]
        return part[:, ::-1] if rising else part

    def _axis(self, cube, name: str) -> np.ndarray:
        values = np.asarray(self._variable(cube, name)[...], np.float64)
        if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
            raise InputError(
                f"{self.path}: {name}: expected an axis of at least two numbers, found {values.shape}"
            )
        steps = np.diff(values)
        if not np.allclose(steps, steps[0], rtol=1e-3) or steps[0] == 0:
            raise InputError(f"{self.path}: {name}: expected evenly spaced pixel centres")
        return values

    def _rising(self, cube) -> bool:
        """Whether the rows run from south to north."""
        y = self._axis(cube, self.y)
        return bool(y[-1] > y[0])

    def _place(self, cube) -> Place:
        x, y = self._axis(cube, self.x), self._axis(cube, self.y)
        if x[-1] < x[0]:
            raise InputError(f"{self.path}: {self.x}: expected columns that run east")
        wide, high = (x[-1] - x[0]) / (len(x) - 1), abs(y[-1] - y[0]) / (len(y) - 1)
        transform = Affine(wide, 0, x[0] - wide / 2, 0, -high, max(y[0], y[-1]) + high / 2)
        return Place(self.modality, transform, self._crs(cube), (len(y), len(x)))

    def _crs(self, cube) -> CRS:
        """The key ``crs``, or the WKT of the variable that CF calls the grid mapping."""
        text = self.crs
        if not text:
            variable = self._variable(cube, next(iter(self.bands.values())))
            name = _text(variable.attrs.get("grid_mapping", "spatial_ref"))
            mapping = cube.get(name)
            attributes = {} if mapping is None else mapping.attrs
            text = _text(attributes.get("crs_wkt") or attributes.get("spatial_ref") or "")
        if not text:
            raise InputError(
                f"{self.path}: no variable says the CRS; give the key 'crs', for example EPSG:32631"
            )
        try:
            return need_crs(self.path, CRS.from_user_input(text))
        except (CRSError, ValueError):
            raise InputError(
                f"{self.path}: the CRS {text[:60]!r} is unknown; give the key 'crs'"
            ) from None

    def _days(self, cube) -> list[str]:
        """ISO days of the time axis, whose attribute ``units`` says '<unit> since <date>' (CF)."""
        axis = self._variable(cube, self.time)
        units, calendar = (_text(axis.attrs.get(name, "")) for name in ("units", "calendar"))
        found = CF_TIME.fullmatch(units.strip())
        if not found or (calendar or "standard") not in CALENDARS:
            raise InputError(
                f"{self.path}: {self.time}: expected units like 'days since 2015-06-23' in the standard "
                f"calendar, found {units!r}, calendar {calendar!r}"
            )
        unit, day, clock = found.groups()
        with reading(self.path, f"times in {units!r}"):
            year, month, number = (int(part) for part in day.split("-"))
            hour, minute, *second = (int(part) for part in (clock or "0:0").split(":"))
            start = datetime(year, month, number, hour, minute, *second)
            values = np.atleast_1d(np.asarray(axis[...]))
            if values.ndim != 1:
                raise ValueError(f"a time axis has one dimension, found {values.ndim}")
            return [_day(start, float(value) * SECONDS[unit]) for value in values]

    def _numbers(self, variable) -> Radiometry:
        """The reader's keys, with the variable's attributes where the keys say nothing."""
        attributes = variable.attrs
        scale, offset, nodata = self.scale, self.offset, self.nodata
        if scale is None and "scale_factor" in attributes:
            scale, offset = (
                _number(attributes["scale_factor"]),
                _number(attributes.get("add_offset", 0.0)),
            )
        if nodata is None and "_FillValue" in attributes:
            nodata = _number(attributes["_FillValue"])
        elif (
            nodata is None and self.modality != "hr"
        ):  # what zarr gives where no chunk was written; in hr, 0 is black
            nodata = _number(getattr(variable, "fill_value", None))
        return Radiometry(scale=scale, offset=offset, units=self.units, nodata=nodata)


@dataclass(frozen=True, kw_only=True)
class NetcdfCube(_Cube):
    """NetCDF-4, which is HDF5."""

    @contextmanager
    def _open(self) -> Iterator:
        with open_hdf5(self.path) as file:
            yield file


@dataclass(frozen=True, kw_only=True)
class ZarrCube(_Cube):
    """A zarr group, format 2 or 3, in a folder or at a URL."""

    @contextmanager
    def _open(self) -> Iterator:
        need_file(self.path)
        with reading(self.path, "a zarr group"):
            yield zarr.open_group(str(self.path), mode="r")


def _day(start: datetime, seconds: float) -> str:
    return (start + timedelta(seconds=seconds)).date().isoformat()


def _text(value: object) -> str:
    """An attribute as text; HDF5 may hold it as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _number(value: object) -> float | None:
    """An attribute as a number; xarray writes the fill value of floats into zarr as base64 of a
    double."""
    if value is None:
        return None
    if isinstance(value, str):
        return struct.unpack("<d", base64.b64decode(value))[0]
    return float(np.ravel(value)[0])
