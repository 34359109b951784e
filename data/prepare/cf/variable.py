"""One variable of a NetCDF-4 file or a zarr group, and its attributes.

h5py and zarr share what is used of their arrays: shape, dtype, attributes and slices. They differ
in how an axis gets its name.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np
import zarr

from data.errors import InputError
from data.prepare.contract.files import File, reading
from data.suggest import did_you_mean

Group = Any  # an open h5py file or zarr group
Number = int | float

# What netCDF writes for a dimension without a coordinate variable: an array that holds no numbers.
EMPTY_SCALE = "This is a netCDF dimension but not a netCDF variable"
RENAMED = "_nc4_non_coord_"  # netCDF's prefix of a variable that has the name of another's axis


@dataclass(frozen=True)
class BandLayer:
    """One position along an axis of an array: a band of a stack."""

    array: Any  # h5py.Dataset or zarr.Array
    axis: int
    position: int


@dataclass(frozen=True)
class Variable:
    """An array of an open file, or a layer of one."""

    path: File
    name: str
    array: Any  # h5py.Dataset or zarr.Array
    layer: BandLayer | None = None

    @property
    def where(self) -> str:
        """File and variable, for errors."""
        return f"{self.path}: {self.name}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self._without_layer(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored numbers."""
        return self.array.dtype

    @cached_property
    def axes(self) -> tuple[str, ...] | None:
        """The name of each axis; None where the file names none."""
        with reading(self.path, f"named axes of {self.name!r}"):
            if isinstance(self.array, h5py.Dataset):
                names = _hdf5_axes(self.array)
            else:
                names = _zarr_axes(self.array)
        if not any(names) or len(names) != len(self.array.shape):
            return None
        return self._without_layer(tuple(names))

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The attributes, without those that are null."""
        return attributes_of(self.path, self.array, f"attributes of {self.name!r}")

    @property
    def is_empty_scale(self) -> bool:
        """Whether the array only gives an axis its name."""
        return self.text("NAME").startswith(EMPTY_SCALE)

    @property
    def stored_fill(self) -> Number | None:
        """What is read where nothing was ever written; None where nobody chose it."""
        if isinstance(self.array, h5py.Dataset):
            chosen = self.array.id.get_create_plist().fill_value_defined()
            if chosen != h5py.h5d.FILL_VALUE_USER_DEFINED:
                return None
            fill = self.array.fillvalue
        else:
            fill = self.array.fill_value
        if fill is None or np.asarray(fill).dtype.kind not in "biuf":
            return None
        return np.asarray(fill).item()

    def text(self, key: str) -> str:
        """An attribute as text; empty when it is not there."""
        return text_of(self.attributes.get(key, ""))

    def numbers(self, key: str) -> list[Number]:
        """An attribute as numbers; empty when it is not there.

        Raises:
            InputError: it is something else.
        """
        numbers = []
        for item in np.ravel(np.asarray(self.attributes.get(key, []), object)):
            try:
                numbers.append(_number(item))
            except (ValueError, TypeError):
                raise InputError(
                    f"{self.where}: attribute {key}: expected numbers, found {item!r}; correct the "
                    "attribute"
                ) from None
        return numbers

    def number(self, key: str) -> Number | None:
        """An attribute as one number; None when it is not there. Raises as ``numbers``."""
        numbers = self.numbers(key)
        if not numbers:
            return None
        if len(numbers) > 1:
            raise InputError(f"{self.where}: attribute {key}: expected one number, found {numbers}")
        return numbers[0]

    def read(self, *selection: int | slice) -> np.ndarray:
        """The stored numbers, all of them without a selection."""
        if self.layer is not None:
            chosen = list(selection) or [slice(None)] * len(self.shape)
            chosen.insert(self.layer.axis, self.layer.position)
            selection = tuple(chosen)
        with reading(self.path, f"numbers of {self.name!r}"):
            return np.asarray(self.array[selection or ...])

    def _without_layer(self, axes: tuple) -> tuple:
        """What an array has of each axis, without the one along which the layers lie."""
        if self.layer is None:
            return axes
        return axes[: self.layer.axis] + axes[self.layer.axis + 1 :]


def find_variable(path: File, group: Group, name: str) -> Variable | None:
    """The variable called ``name``, if the group has it. A name may be a path of groups."""
    with reading(path, f"a variable {name!r}"):
        if name not in group:
            return None
        array = group[name]
    if isinstance(array, BandLayer):
        return Variable(path, name, array.array, array)
    if not hasattr(array, "shape"):
        return None
    return Variable(path, name, array)


def need_variable(path: File, group: Group, name: str) -> Variable:
    """The variable called ``name``; InputError when the group has none."""
    variable = find_variable(path, group, name)
    if variable is None:
        with reading(path, "a list of variables"):
            known = sorted(group)
            is_group = name in group
        if is_group:
            raise InputError(
                f"{path}: expected a variable {name!r}, found a group of that name, which holds "
                f"{sorted(group[name])}; name the variable with its group: '{name}/...'"
            )
        raise InputError(
            f"{path}: expected a variable {name!r}{did_you_mean(name, known)}, found {known}"
        )
    return variable


def attributes_of(path: File, item: Any, kind: str) -> dict[str, Any]:
    """The attributes of an array or a group, without those that are null.

    Args:
        path: the file, for errors.
        item: what h5py or zarr opened.
        kind: what is read, for errors.
    """
    attributes = {}
    with reading(path, kind):
        for key, value in item.attrs.items():
            if value is not None and not isinstance(value, h5py.Empty):
                attributes[key] = value
    return attributes


def text_of(attribute: object) -> str:
    """An attribute as text. HDF5 may hold it as bytes, or as an array of one text."""
    if isinstance(attribute, np.ndarray) and attribute.size == 1:
        attribute = attribute.reshape(-1)[0]
    if isinstance(attribute, bytes):
        attribute = attribute.decode("utf-8", "replace")
    return str(attribute).strip()


def base_name(name: str) -> str:
    """A name without its groups."""
    return name.rpartition("/")[2].removeprefix(RENAMED)


def _hdf5_axes(dataset: h5py.Dataset) -> list[str]:
    """From dimension scales or labels; a scale names its own axis."""
    if dataset.is_scale and dataset.ndim == 1:
        return [base_name(dataset.name)]
    names = []
    for dimension in dataset.dims:
        name = dimension.label
        if len(dimension):
            name = dimension[0].name
        names.append(base_name(name or ""))
    return names


def _zarr_axes(array: zarr.Array) -> list[str]:
    """``dimension_names`` of zarr 3, or the attribute that xarray gives to zarr 2."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    if names is None:
        names = array.attrs.get("_ARRAY_DIMENSIONS", [])
    return [base_name(str(name or "")) for name in names]


def _number(item: object) -> Number:
    """One number of an attribute.

    JSON has no word for numbers that are not finite: writers spell them, and xarray writes the
    eight bytes of a double as base64.
    """
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, bytes):
        item = item.decode("ascii")
    if isinstance(item, int | float) and not isinstance(item, bool):
        return item
    if not isinstance(item, str):
        raise TypeError(type(item).__name__)
    try:
        return float(item)
    except ValueError:
        pass
    try:
        (number,) = struct.unpack("<d", base64.b64decode(item, validate=True))
    except (struct.error, binascii.Error) as error:
        raise ValueError(item) from error
    return number
