"""The arrays that patches are stored in: .npy and .npz files."""

from math import prod
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.prepare.contract.bands import BandKeys, band_number
from data.prepare.contract.files import File, Remote, open_arrays
from data.suggest import did_you_mean

SUFFIXES = (".npy", ".npz")
AXES = ("CHW", "HWC", "HW", "CWH", "WHC", "WH")  # band, row, column in the order of the array


def is_array(path: File) -> bool:
    """Whether a file holds arrays, and no picture."""
    return Path(path.name).suffix.lower() in SUFFIXES


def array_faults(path: File, array: str, axes: str) -> list[str]:
    """What is wrong with the keys ``array`` and ``axes``; see ``Reader.check_keys``."""
    faults = []
    given = [f"{name} {value!r}" for name, value in (("array", array), ("axes", axes)) if value]
    if given and not is_array(path):
        faults.append(f"{', '.join(given)}: only of .npy and .npz files, found {path.name}")
    if array and path.name.lower().endswith(".npy"):
        faults.append(f"array {array!r}: a .npy file has one array without a name; leave it out")
    if axes and axes not in AXES:
        faults.append(f"axes {axes!r}: expected one of {list(AXES)}{did_you_mean(axes, AXES)}")
    if is_array(path) and isinstance(path, Remote):
        faults.append(f"path: expected arrays in a file of this file system, found {path}")
    return faults


def array_name(path: File, array: str) -> str:
    """How a record names an array: 'patch.npz[s2]'."""
    if array:
        return f"{path.name}[{array}]"
    return path.name


def read_array(path: File, array: str) -> np.ndarray:
    """One array of a file.

    Args:
        path: the file.
        array: its name; empty when the file has just one.

    Raises:
        InputError: the file is damaged, or has no such array or several.
    """
    assert isinstance(path, Path)  # as checked
    with open_arrays(path) as arrays:
        names = arrays.names
        if not array and len(names) != 1:
            raise InputError(f"{path}: has the arrays {names}; say which with 'array'")
        name = array or names[0]
        if name not in names:
            raise InputError(
                f"{path}: no array {name!r}{did_you_mean(name, names)}; the file has {names}"
            )
        values = arrays[name]
    if not prod(values.shape):
        raise InputError(f"{path}: {name or 'the array'} is empty: {values.shape}")
    return values


def bands_first(array: np.ndarray, bands: BandKeys, axes: str, *, where: str) -> np.ndarray:
    """An array as (C, H, W).

    Without ``axes`` the axis of the bands is the one with as many as are named, else the one that
    is shorter than both others.

    Args:
        array: (C, H, W), (H, W, C), or (H, W) of one band, behind axes of length 1.
        bands: the key ``bands``.
        axes: the key ``axes``.
        where: the file, for errors.

    Raises:
        InputError: other axes, or some that could mean several things.
    """
    while array.ndim > max(len(axes), 3 - 3 * bool(axes)) and array.shape[0] == 1:
        array = array[0]
    if axes:
        if array.ndim != len(axes):
            raise InputError(f"{where}: axes {axes!r}: the array has the shape {array.shape}")
        positions = [axes.index(axis) for axis in "CHW" if axis in axes]
        ordered = array.transpose(positions)
    elif array.ndim == 2:
        ordered = array
    elif array.ndim == 3:
        ordered = np.moveaxis(array, _band_axis(array, bands, where), 0)
    else:
        raise InputError(
            f"{where}: expected one image (C, H, W), (H, W, C) or (H, W), found the shape "
            f"{array.shape}; a file holds one frame of one patch"
        )
    if ordered.ndim == 2:
        ordered = ordered[None]
    return ordered


def _band_axis(array: np.ndarray, bands: BandKeys, where: str) -> int:
    """The axis of the bands, 0 or 2, of an array of three axes."""
    first, middle, last = array.shape
    if not isinstance(bands, dict) and any(band_number(key) is None for key in bands):
        named = [axis for axis in (0, 2) if array.shape[axis] == len(bands)]
        if len(named) == 1:
            return named[0]
    shorter = []
    if first < min(middle, last):
        shorter.append(0)
    if last < min(first, middle):
        shorter.append(2)
    if len(shorter) != 1:
        raise InputError(
            f"{where}: which axis of {array.shape} holds the bands? say it with 'axes': 'CHW' or "
            "'HWC'"
        )
    return shorter[0]
