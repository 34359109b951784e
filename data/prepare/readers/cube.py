"""Series as a data cube: NetCDF-4 or zarr, a variable a band, axes time, y, x.

The names of the variables are keys. Both libraries give arrays with shape, attributes and slices,
so one class does the work.
"""

import base64
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from data.errors import InputError
from data.prepare.contract.files import File, need_crs, need_file, open_hdf5, reading
from data.prepare.contract.georeference import Georeference
from data.prepare.contract.grid import Grid
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.resample import resample_labels
from data.prepare.contract.source import (
    Frames,
    Layer,
    Place,
    band_faults,
    crs_faults,
    join_layers,
    modality_faults,
)
from data.prepare.contract.window import Window
from data.prepare.readers.cf_time import cf_times, iso_days, text_of
from data.prepare.readers.rasters import NO_CODE
from data.tiles.modalities import MODALITIES

# An open file or group, and one of its arrays. h5py and zarr share what is used of them.
Group = Any
Variable = Any


@dataclass(frozen=True, kw_only=True)
class _Cube(Radiometry, ABC):
    """``scale``, ``offset`` and ``nodata`` stand in for the CF attributes of the variables."""

    path: File
    modality: str
    bands: dict[str, str]  # band of the sensor -> its variable
    time: str = "time"
    x: str = "x"
    y: str = "y"
    crs: str = ""  # empty: what the grid mapping of the variables says
    mask: str = ""  # a variable of codes
    masked: tuple[int, ...] = ()  # the codes that hide a pixel

    def check_keys(self) -> list[str]:
        """Modality, bands, numbers, mask, CRS."""
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
        return faults

    def check(self) -> None:
        """Variables there and of one shape, axes, CRS, dates, numbers that fit."""
        sensor = MODALITIES[self.modality]
        with self._open() as cube:
            place = self._place(cube)
            shape = (len(self._days(cube)), *place.shape)
            for band in sensor.bands:
                name = self.bands[band]
                variable = self._variable_of_shape(cube, name, shape)
                numbers = self._numbers(variable)
                numbers.check_numbers(f"{self.path}: {name}", sensor, variable.dtype)
            if self.mask:
                self._variable_of_shape(cube, self.mask, shape)

    def place(self) -> Place:
        """The cube's pixels, as if its rows ran south."""
        with self._open() as cube:
            return self._place(cube)

    def read(self, grid: Grid) -> list[Frames]:
        """One series."""
        sensor = MODALITIES[self.modality]
        with self._open() as cube:
            window = self._place(cube).window(grid)
            days = self._days(cube)
            if window is None or not days:
                return []
            rising = self._is_rising(cube)
            raw = []
            numbers = []
            for band in sensor.bands:
                name = self.bands[band]
                raw.append(self._pixels(cube, name, window, rising=rising))  # T H W
                numbers.append(self._numbers(self._variable(cube, name)))
            codes = None
            if self.mask:
                codes = self._pixels(cube, self.mask, window, rising=rising)  # T H W
        layers = []
        for band, pixels, radiometry in zip(sensor.bands, raw, numbers):
            series, valid = radiometry.in_units(pixels[:, None], sensor)  # T 1 H W, T H W
            layer = Layer(
                bands=(band,), array=series, valid=valid, georeference=window.georeference
            )
            layers.append(layer)
        array, valid = join_layers(layers, sensor, grid)
        if codes is not None:
            valid &= ~self._hidden(codes, window.georeference, grid)
        frames = Frames(
            modality=self.modality, array=array, valid=valid, dates=days, source=self.path.name
        )
        return [frames.in_time_order(days)]

    @abstractmethod
    def _open(self) -> AbstractContextManager[Group]:
        """The file's group of variables, open."""

    def _hidden(self, codes: np.ndarray, source: Georeference, grid: Grid) -> np.ndarray:
        """Codes (T, H, W) -> bool (T, h, h) on the grid, true where a code hides the pixel."""
        pixels = MODALITIES[self.modality].pixels
        frames = []
        for frame in codes:
            frames.append(
                resample_labels(frame.astype(np.int32), source, grid, pixels=pixels, fill=NO_CODE)
            )
        return np.isin(np.stack(frames), (*self.masked, NO_CODE))

    def _variable(self, cube: Group, name: str) -> Variable:
        with reading(self.path, f"a variable {name!r}"):
            variable = cube[name]
            if not hasattr(variable, "shape"):
                raise ValueError("a group")
        return variable

    def _variable_of_shape(self, cube: Group, name: str, shape: tuple[int, ...]) -> Variable:
        variable = self._variable(cube, name)
        if variable.shape != shape:
            raise InputError(
                f"{self.path}: {name}: expected {self.time} x {self.y} x {self.x} = {shape}, "
                f"found {variable.shape}"
            )
        return variable

    def _pixels(self, cube: Group, name: str, window: Window, *, rising: bool) -> np.ndarray:
        """(T, H, W) of a variable in a window, rows from north to south.

        ``rising``: the rows of the file run from south to north.
        """
        variable = self._variable(cube, name)
        if not rising:
            return variable[:, window.rows, window.columns]
        height = variable.shape[1]
        rows = slice(height - window.rows.stop, height - window.rows.start)
        return variable[:, rows, window.columns][:, ::-1]

    def _axis(self, cube: Group, name: str) -> np.ndarray:
        """Evenly spaced pixel centres."""
        values = np.asarray(self._variable(cube, name)[...], np.float64)
        if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
            raise InputError(
                f"{self.path}: {name}: expected an axis of at least two numbers, "
                f"found {values.shape}"
            )
        steps = np.diff(values)
        if not np.allclose(steps, steps[0], rtol=1e-3) or steps[0] == 0:
            raise InputError(f"{self.path}: {name}: expected evenly spaced pixel centres")
        return values

    def _is_rising(self, cube: Group) -> bool:
        """Whether the rows run from south to north."""
        y = self._axis(cube, self.y)
        return bool(y[-1] > y[0])

    def _place(self, cube: Group) -> Place:
        x = self._axis(cube, self.x)
        y = self._axis(cube, self.y)
        if x[-1] < x[0]:
            raise InputError(f"{self.path}: {self.x}: expected columns that run east")
        width = (x[-1] - x[0]) / (len(x) - 1)
        height = abs(y[-1] - y[0]) / (len(y) - 1)
        left = x[0] - width / 2
        top = max(y[0], y[-1]) + height / 2
        transform = Affine(width, 0, left, 0, -height, top)
        return Place(self.modality, Georeference(transform, self._crs(cube)), (len(y), len(x)))

    def _crs(self, cube: Group) -> CRS:
        """The key ``crs``, or the WKT of the variable that CF calls the grid mapping."""
        text = self.crs
        if not text:
            text = self._wkt(cube)
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

    def _wkt(self, cube: Group) -> str:
        """What the grid mapping says; empty when there is none."""
        first_band = self._variable(cube, next(iter(self.bands.values())))
        name = text_of(first_band.attrs.get("grid_mapping", "spatial_ref"))
        mapping = cube.get(name)
        if mapping is None:
            return ""
        for attribute in ("crs_wkt", "spatial_ref"):
            text = text_of(mapping.attrs.get(attribute, ""))
            if text:
                return text
        return ""

    def _days(self, cube: Group) -> list[str]:
        """ISO days of the time axis."""
        axis = self._variable(cube, self.time)
        return iso_days(cf_times(self.path, self.time, axis[...], axis.attrs))

    def _numbers(self, variable: Variable) -> Radiometry:
        """The reader's keys, with the variable's attributes where the keys say nothing."""
        attributes = variable.attrs
        scale = self.scale
        offset = self.offset
        if scale is None and "scale_factor" in attributes:
            scale = _number(attributes["scale_factor"])
            offset = _number(attributes.get("add_offset", 0.0))
        nodata = self.nodata
        if nodata is None and "_FillValue" in attributes:
            nodata = _number(attributes["_FillValue"])
        elif nodata is None and self.modality != "hr":  # in hr, 0 is black
            # What zarr gives where no chunk was written.
            fill = getattr(variable, "fill_value", None)
            if fill is not None:
                nodata = _number(fill)
        return Radiometry(scale=scale, offset=offset, units=self.units, nodata=nodata)


@dataclass(frozen=True, kw_only=True)
class NetcdfCube(_Cube):
    """NetCDF-4, which is HDF5."""

    def _open(self) -> AbstractContextManager[Group]:
        return open_hdf5(self.path)


@dataclass(frozen=True, kw_only=True)
class ZarrCube(_Cube):
    """A zarr group, format 2 or 3, in a folder or at a URL."""

    @contextmanager
    def _open(self) -> Iterator[Group]:
        need_file(self.path)
        with reading(self.path, "a zarr group"):
            yield zarr.open_group(str(self.path), mode="r")


def _number(attribute: Any) -> float:
    """An attribute as a number.

    xarray writes the fill value of floats into zarr as the base64 text of a double.
    """
    if isinstance(attribute, str):
        return struct.unpack("<d", base64.b64decode(attribute))[0]
    return float(np.ravel(attribute)[0])
