"""NetCDF and zarr that GDAL writes lie where GDAL says, and hold the numbers that GDAL reads."""

import h5py
import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from rasterio.crs import CRS
from rasterio.shutil import copy

from data.prepare.cf.cube import AxisKeys, cube_of
from data.prepare.cf.packing import packing_of
from data.prepare.place.window import Window

PLACES = {
    "utm": (32631, Affine(10, 0, 600_000, 0, -10, 5_700_000)),
    "degrees": (4326, Affine(1e-4, 0, 9.1, 0, -1e-4, 48.7)),
    "laea": (3035, Affine(20, 0, 4_321_000, 0, -20, 3_210_000)),
    "lambert": (2154, Affine(2.5, 0, 700_000, 0, -2.5, 6_600_000)),
    "polar": (3031, Affine(30, 0, -1_000_000, 0, -30, 500_000)),
}


@pytest.mark.parametrize("bottom_up", ["YES", "NO"])
@pytest.mark.parametrize("place", PLACES)
def test_netcdf(tmp_path, place, bottom_up):
    number, transform = PLACES[place]
    path = tmp_path / "a.nc"
    raw = np.arange(48, dtype=np.int16).reshape(6, 8)
    profile = {"width": 8, "height": 6, "count": 1, "dtype": "int16", "nodata": 7}
    crs = CRS.from_epsg(number)
    tiff = tmp_path / "a.tif"
    with rasterio.open(tiff, "w", driver="GTiff", **profile, crs=crs, transform=transform) as file:
        file.write(raw, 1)
    copy(tiff, path, driver="netCDF", FORMAT="NC4", WRITE_BOTTOMUP=bottom_up)
    with h5py.File(path) as file:
        cube = cube_of(path, file, ["Band1"], AxisKeys(time=None))
        variable = cube.variable("Band1")
        stored = cube.read(variable, Window(slice(0, 6), slice(0, 8), cube.georeference))
        packing = packing_of(variable)
    with rasterio.open(path) as file:
        assert cube.crs == file.crs == crs
        step = abs(transform.a)
        np.testing.assert_allclose(
            tuple(cube.georeference.transform), tuple(file.transform), atol=1e-3 * step
        )
        np.testing.assert_array_equal(stored[0], file.read(1))
        np.testing.assert_array_equal(packing.present(stored)[0], file.read_masks(1) > 0)


def test_zarr(tmp_path):
    number, transform = PLACES["utm"]
    path = tmp_path / "a.zarr"
    raw = np.arange(48, dtype=np.uint16).reshape(6, 8)
    profile = {"driver": "Zarr", "width": 8, "height": 6, "count": 1, "dtype": "uint16"}
    crs = CRS.from_epsg(number)
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=7) as file:
        file.write(raw, 1)
    group = zarr.open_group(str(path), mode="r")
    (name,) = [key for key in group if group[key].ndim == 2]
    cube = cube_of(path, group, [name], AxisKeys(time=None))
    variable = cube.variable(name)
    stored = cube.read(variable, Window(slice(0, 6), slice(0, 8), cube.georeference))
    assert cube.crs == crs and tuple(cube.georeference.transform) == tuple(transform)
    np.testing.assert_array_equal(stored[0], raw)
    present = packing_of(variable, unwritten=True).present(stored)[0]
    np.testing.assert_array_equal(present, raw != 7)
