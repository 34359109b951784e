"""The CRS in all the ways in which writers put it, and contradictions."""

import h5py
import numpy as np
import pyproj
import pytest
import zarr
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.cf.cube import AxisKeys, cube_of
from tests.unit.data.prepare.cf.stores import EAST, LEFT, NORTH, TOP, UTM, N, axes_of, write_store

FOREIGN = pyproj.CRS.from_epsg(32632)
PARAMETERS = {key: value for key, value in FOREIGN.to_cf().items() if key != "crs_wkt"}
BARE = {
    "grid_mapping_name": "transverse_mercator",
    "latitude_of_projection_origin": 0.0,
    "longitude_of_central_meridian": 9.0,
    "false_easting": 500_000.0,
    "false_northing": np.float32([0]),
    "scale_factor_at_central_meridian": 0.9996,
    "semi_major_axis": 6_378_137.0,
    "inverse_flattening": 298.257223563,
}
NUMBERS = np.zeros((1, N, N))


def cube(path, attributes, variable=None, **changes):
    """A cube whose grid mapping has some attributes."""
    variables = axes_of(1, spatial_ref=((), np.int32(0), attributes), **changes)
    variables["B"] = (("time", "y", "x"), NUMBERS, variable or {})
    write_store(path, "netcdf", variables)
    with h5py.File(path) as file:
        return cube_of(path, file, ["B"], AxisKeys())


@pytest.mark.parametrize(
    "attributes",
    [
        {"crs_wkt": UTM.to_wkt()},
        {"spatial_ref": b"EPSG:32632"},
        {"crs_wkt": FOREIGN.to_wkt("WKT2_2019"), "spatial_ref": UTM.to_wkt(), **PARAMETERS},
        {"proj4": "+proj=utm +zone=32 +datum=WGS84 +units=m"},
        {"epsg_code": "EPSG:32632"},
        {"EPSG": 32632},
        {"epsg": np.array([32632.0])},
        {"crs": "+init=epsg:32632"},
        PARAMETERS,
        BARE,
    ],
)
def test_every_form_is_the_crs_of_its_number(tmp_path, attributes):
    assert cube(tmp_path / "a.nc", attributes).crs == UTM
    assert cube(tmp_path / "b.nc", {}, attributes).crs == UTM  # of the variable itself


def test_a_projection_without_a_number(tmp_path):
    wanted = pyproj.CRS.from_proj4("+proj=laea +lat_0=40 +lon_0=9 +datum=WGS84 +units=m")
    attributes = {key: value for key, value in wanted.to_cf().items() if key != "crs_wkt"}
    crs = cube(tmp_path / "a.nc", attributes).crs
    to_degrees = pyproj.Transformer.from_crs(crs.to_wkt(), "OGC:CRS84", always_xy=True)
    expected = pyproj.Transformer.from_crs(wanted, "OGC:CRS84", always_xy=True)
    assert to_degrees.transform(EAST[0], NORTH[0]) == expected.transform(EAST[0], NORTH[0])


def test_the_mapping_of_the_axes_that_are_read(tmp_path):
    changes = {"wgs": ((), np.int32(0), {"epsg_code": 4326})}
    variable = {"grid_mapping": "wgs: lat lon spatial_ref: y x"}
    assert cube(tmp_path / "a.nc", {"epsg_code": 32632}, variable, **changes).crs == UTM


@pytest.mark.parametrize("rising", [False, True])
def test_degrees_without_a_mapping(tmp_path, rising):
    step = 1e-4
    longitude = 190 + step * np.arange(N)
    latitude = np.float32(48 - step * np.arange(N))[:: -1 if rising else 1]
    changes = {
        "lon": (("lon",), longitude, {"units": "degrees_east"}),
        "lat": (("lat",), latitude, {"units": "degrees_north"}),
        "time": (("time",), [0], {"units": "days since 2020-05-01"}),
        "B": (("time", "lat", "lon"), NUMBERS, {}),
    }
    write_store(tmp_path / "a.nc", "netcdf", changes)
    with h5py.File(tmp_path / "a.nc") as file:
        georeference = cube_of(tmp_path / "a.nc", file, ["B"], AxisKeys()).georeference
    assert georeference.crs == CRS.from_epsg(4326)
    np.testing.assert_allclose(
        georeference.transform[:6],
        (step, 0, -170 - step / 2, 0, -step, 48 + step / 2),
        atol=0.05 * step,
    )


@pytest.mark.parametrize("shift", [0, 3, -40])
def test_a_geotransform_from_before_a_cut(tmp_path, shift):
    text = f"{LEFT + 10 * shift} 10.0 0.0 {TOP - 10 * shift} 0.0 -10.0 "
    attributes = {"crs_wkt": UTM.to_wkt(), "GeoTransform": text}
    transform = cube(tmp_path / "a.nc", attributes).georeference.transform
    assert tuple(transform)[:6] == (10, 0, LEFT, 0, -10, TOP)
    attributes["GeoTransform"] = np.array([float(word) for word in text.split()]).tolist()
    variables = axes_of(1, spatial_ref=((), np.int32(0), attributes))
    variables["B"] = (("time", "y", "x"), NUMBERS, {})
    path = write_store(tmp_path / "a.zarr", "zarr 3", variables)
    transform = cube_of(path, zarr.open_group(str(path)), ["B"], AxisKeys()).georeference.transform
    assert tuple(transform)[:6] == (10, 0, LEFT, 0, -10, TOP)


@pytest.mark.parametrize(
    "attributes, variable, words",
    [
        ({}, {}, "no variable says the CRS; give the key 'crs'"),
        ({}, {"grid_mapping": "gone"}, "B: attribute grid_mapping: no variable 'gone'"),
        ({}, {"grid_mapping": "wgs: lat lon"}, "B: attribute grid_mapping: .*none for the axes"),
        ({"crs_wkt": "PROJCS[broken"}, {}, "spatial_ref: attribute crs_wkt: .* is unknown"),
        ({"epsg_code": "UTM"}, {}, "spatial_ref: attribute epsg_code: the CRS 'UTM' is unknown"),
        ({"grid_mapping_name": "flat_earth"}, {}, "grid mapping 'flat_earth'"),
        (
            {"crs_wkt": UTM.to_wkt(), "epsg_code": 32633},
            {},
            "crs_wkt says the CRS 'WGS 84 / UTM zone 32N', epsg_code says .*33N",
        ),
        (
            {"crs_wkt": UTM.to_wkt(), **BARE, "longitude_of_central_meridian": 15.0},
            {},
            "crs_wkt says .* grid_mapping_name says",
        ),
        (
            {"crs_wkt": UTM.to_wkt(), "GeoTransform": f"{LEFT + 5} 10 0 {TOP - 5} 0 -10"},
            {},
            "GeoTransform .* and the axes x, y .* disagree",
        ),
        (
            {"crs_wkt": UTM.to_wkt(), "GeoTransform": f"{LEFT} 20 0 {TOP} 0 -20"},
            {},
            "GeoTransform .* disagree",
        ),
        ({"crs_wkt": UTM.to_wkt(), "GeoTransform": "1 2 3"}, {}, "GeoTransform: expected six"),
    ],
)
def test_what_cannot_be_a_place_is_named(tmp_path, attributes, variable, words):
    with pytest.raises(InputError, match=words) as refused:
        cube(tmp_path / "a.nc", attributes, variable)
    assert "a.nc" in str(refused.value) and "\n" not in str(refused.value)
