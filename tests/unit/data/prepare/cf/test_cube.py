"""Axes and places of small cubes, against the ground that the formula of their numbers says."""

import h5py
import numpy as np
import pytest
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.cf.cube import AxisKeys, cube_of
from data.prepare.place.georeference import Georeference
from data.prepare.place.window import Window
from tests.unit.data.prepare.cf.stores import (
    DAYS,
    EAST,
    KINDS,
    LEFT,
    NORTH,
    TOP,
    UTM,
    N,
    axes_of,
    write_store,
)

ROWS, COLUMNS = np.arange(N)[:, None], np.arange(N)
FRAMES = 3
GROUND = np.stack([1000 * t + 10 * ROWS + COLUMNS for t in range(FRAMES)])  # T y x


def opened(path, kind):
    return h5py.File(path) if kind == "netcdf" else zarr.open_group(str(path), mode="r")


def read_cube(path, kind, variables, keys=None, names=("B",), rows=slice(0, N)):
    """Write variables; the cube's place, and the numbers of the first in some rows."""
    write_store(path, kind, variables)
    group = opened(path, kind)
    try:
        cube = cube_of(path, group, names, keys or AxisKeys())
        window = Window(rows, slice(0, cube.shape[1]), cube.georeference)
        numbers = cube.read(cube.variable(names[0]), window)
        return cube.georeference, numbers
    finally:
        if kind == "netcdf":
            group.close()


def place():
    return Georeference(Affine(10, 0, LEFT, 0, -10, TOP), UTM)


def near(georeference, other):
    """The same CRS, and the same pixels to a millimetre."""
    assert georeference.crs == other.crs
    np.testing.assert_allclose(georeference.transform, other.transform, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations(["time", "y", "x", "band"]),
    kind=st.sampled_from(KINDS),
    rising=st.booleans(),
    west=st.booleans(),
    kilometres=st.booleans(),
    packed=st.booleans(),
    rows=st.tuples(st.integers(0, N - 1), st.integers(1, N)).filter(lambda rows: rows[0] < rows[1]),
)
def test_any_order_and_direction(
    tmp_path_factory, order, kind, rising, west, kilometres, packed, rows
):
    unit = 1000 if kilometres else 1
    y = (NORTH[::-1] if rising else NORTH) / unit
    x = (EAST[::-1] if west else EAST) / unit
    attributes = {"units": "km" if kilometres else "m"}
    if packed:  # in half pixels
        attributes |= {"scale_factor": 5 / unit, "add_offset": 5 / unit}
        y, x = np.rint(y * unit / 5 - 1).astype(int), np.rint(x * unit / 5 - 1).astype(int)
    ground = GROUND[:, :: -1 if rising else 1, :: -1 if west else 1][..., None]
    numbers = ground.transpose([["time", "y", "x", "band"].index(name) for name in order])
    variables = axes_of(FRAMES, y=(("y",), y, attributes), x=(("x",), x, attributes))
    variables["B"] = (tuple(order), numbers, {"grid_mapping": "spatial_ref"})
    path = tmp_path_factory.mktemp("cube") / "cube"
    georeference, read = read_cube(path, kind, variables, rows=slice(*rows))
    near(georeference, place())
    np.testing.assert_array_equal(read, GROUND[:, slice(*rows)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "names, attributes",
    [
        (
            ("t", "northing", "easting"),
            ({}, {}, {}),
        ),
        (
            ("a", "b", "c"),
            (
                {"standard_name": "time"},
                {"standard_name": "projection_y_coordinate"},
                {"standard_name": "projection_x_coordinate"},
            ),
        ),
        (("k", "j", "i"), ({"axis": "T"}, {"axis": "Y"}, {"axis": "X"})),
        # names that say the opposite
        (("y", "x", "time"), ({"axis": "T"}, {"axis": "Y"}, {"axis": "X"})),
    ],
)
def test_axes_by_their_attributes(tmp_path, kind, names, attributes):
    values = (np.arange(FRAMES), NORTH, EAST)
    variables = {"crs": ((), np.int32(0), {"crs_wkt": UTM.to_wkt()})}
    for name, numbers, stated in zip(names, values, attributes):
        units = DAYS if numbers is values[0] else {}
        variables[name] = ((name,), numbers, {**units, **stated})
    variables["B"] = (names, GROUND, {"grid_mapping": "crs"})
    georeference, read = read_cube(tmp_path / "cube", kind, variables)
    near(georeference, place())
    np.testing.assert_array_equal(read, GROUND)


@pytest.mark.parametrize("kind", KINDS)
def test_axes_of_other_names_by_keys(tmp_path, kind):
    """Numbers of the axes in variables that are not named like them."""
    variables = {
        "when": (("k",), np.arange(FRAMES), DAYS),
        "up": (("j",), NORTH, {}),
        "right": (("i",), EAST, {}),
        "B": (("i", "k", "j"), GROUND.transpose(2, 0, 1), {}),
    }
    keys = AxisKeys(time="when", y="up", x="right", crs="EPSG:32632")
    georeference, read = read_cube(tmp_path / "cube", kind, variables, keys)
    near(georeference, place())
    np.testing.assert_array_equal(read, GROUND)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [((), 0, DAYS), (("time",), [0], DAYS)])
def test_one_frame_needs_no_axis_of_time(tmp_path, kind, time):
    variables = axes_of(1, time=time, B=(("y", "x"), GROUND[0], {}))
    _, read = read_cube(tmp_path / "cube", kind, variables)
    np.testing.assert_array_equal(read, GROUND[:1])


def test_a_file_without_names_of_axes_has_the_order_of_the_page(tmp_path):
    path = tmp_path / "cube.nc"
    with h5py.File(path, "w") as file:
        for name, (_, numbers, attributes) in axes_of(FRAMES).items():
            file.create_dataset(name, data=numbers).attrs.update(attributes)
        file["B"] = GROUND
        file["B"].attrs["grid_mapping"] = "spatial_ref"
        file["turned"] = GROUND.transpose(1, 2, 0)
    with h5py.File(path) as file:
        cube = cube_of(path, file, ["B"], AxisKeys())
        near(cube.georeference, place())
        words = r"turned: expected time x y x x = \(3, 8, 8\), found \(8, 8, 3\) without names"
        with pytest.raises(InputError, match=words):
            cube.variable("turned")


def test_axes_in_groups(tmp_path):
    variables = {}
    for name, (axes, numbers, attributes) in axes_of(FRAMES).items():
        variables[f"r10m/{name}"] = (axes, numbers, attributes)
    variables["r10m/B"] = (("time", "y", "x"), GROUND, {"grid_mapping": "spatial_ref"})
    path = tmp_path / "cube"
    georeference, read = read_cube(path, "zarr 3", variables, names=("r10m/B",))
    near(georeference, place())
    np.testing.assert_array_equal(read, GROUND)


SWATH = {
    "lat": (("i", "j"), np.ones((N, N)), {"units": "degrees_north"}),
    "lon": (("i", "j"), np.ones((N, N)), {"units": "degrees_east"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {**SWATH, "B": (("time", "i", "j"), GROUND, {"coordinates": "lat lon"})},
            r"B: no axis y; \['lat', 'lon'\] of \(8, 8\) are a place for each pixel.*resample it",
        ),
        ({**SWATH, "spatial_ref": ((), np.int32(0), {})}, "CRS; .* are a place for each pixel"),
        (
            {"B": (("time", "level", "y", "x"), GROUND[:, None].repeat(2, 1), {})},
            r"B: expected the axes .* others only of length 1, found .*'level': 2",
        ),
        ({"B": (("y", "x"), GROUND[0], {})}, r"B: no axis time among \['y', 'x'\]"),
        ({"y": (("y",), NORTH + 3 * (ROWS[:, 0] == 4), {})}, "y: expected evenly spaced"),
        ({"y": (("y",), np.where(ROWS[:, 0] == 4, np.nan, NORTH), {})}, "y: expected evenly"),
        ({"y": (("y",), NORTH, {"units": "furlong"})}, "y: attribute units: 'furlong' does not go"),
        ({"x": (("x",), EAST, {"units": "degrees_east"})}, "x: attribute units: 'degrees_east'"),
        ({"x": (("x",), EAST, {"axis": "X", "standard_name": "time"})}, "x: .*name several axes"),
        ({"B": (("time", "y", "q"), GROUND, {})}, r"B: no axis x among .*give the key 'x'"),
    ],
)
def test_axes_that_cannot_be_read_are_named(tmp_path, kind, changes, words):
    variables = axes_of(FRAMES, B=(("time", "y", "x"), GROUND, {}))
    with pytest.raises(InputError, match=words) as refused:
        read_cube(tmp_path / "cube", kind, {**variables, **changes})
    assert "cube" in str(refused.value) and "\n" not in str(refused.value)
