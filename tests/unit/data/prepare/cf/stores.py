"""Small NetCDF-4 files and zarr groups, written by h5py and zarr themselves."""

from pathlib import Path

import h5py
import numpy as np
import zarr
from rasterio.crs import CRS

KINDS = ("netcdf", "zarr 2", "zarr 3")
N = 8  # pixels along a side
LEFT = 600_000.0
TOP = 5_400_000.0
EAST = LEFT + 5 + 10 * np.arange(N)  # pixel centres
NORTH = TOP - 5 - 10 * np.arange(N)
UTM = CRS.from_epsg(32632)
DAYS = {"units": "days since 2020-05-01"}

# Name -> axes, numbers, attributes.
Variables = dict[str, tuple[tuple[str, ...], object, dict]]


def write_store(path: Path, kind: str, variables: Variables) -> Path:
    """Write variables with names of their axes."""
    if kind == "netcdf":
        with h5py.File(path, "w") as file:
            _fill_hdf5(file, variables)
        return path
    group = zarr.open_group(str(path), mode="w", zarr_format=int(kind[-1]))
    for name, (axes, numbers, attributes) in variables.items():
        numbers = np.asarray(numbers)
        named = {"dimension_names": axes} if kind == "zarr 3" else {}
        array = group.create_array(name, shape=numbers.shape, dtype=numbers.dtype, **named)
        array[...] = numbers
        if kind == "zarr 2":
            array.attrs["_ARRAY_DIMENSIONS"] = list(axes)
        for key, value in attributes.items():
            array.attrs[key] = np.asarray(value).tolist()
    return path


def _fill_hdf5(file: h5py.File, variables: Variables) -> None:
    for name, (_, numbers, attributes) in variables.items():
        file.create_dataset(name, data=numbers).attrs.update(attributes)
    for name, (axes, _, _) in variables.items():
        if axes == (name,):
            file[name].make_scale(name)
    for name, (axes, numbers, _) in variables.items():
        for position, axis in enumerate(axes):
            if axes != (name,):
                if axis not in file:  # as netCDF does it
                    empty = file.create_dataset(axis, data=np.zeros(np.shape(numbers)[position]))
                    empty.make_scale("This is a netCDF dimension but not a netCDF variable.    8")
                file[name].dims[position].attach_scale(file[axis])


def axes_of(frames: int, **changes) -> Variables:
    """Time, y and x of the ground above, and its grid mapping; ``changes`` take their place."""
    variables = {
        "time": (("time",), np.arange(frames), DAYS),
        "y": (("y",), NORTH, {}),
        "x": (("x",), EAST, {}),
        "spatial_ref": ((), np.int32(0), {"crs_wkt": UTM.to_wkt()}),
    }
    return {**variables, **changes}
