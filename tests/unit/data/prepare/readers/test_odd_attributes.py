"""Whatever stands in an attribute, a cube is read or refused by one line that names the file."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.place.grid import Grid
from data.prepare.readers.cube import NetcdfCube, ZarrCube
from tests.unit.data.prepare.cf.stores import KINDS, LEFT, TOP, UTM, N, axes_of, write_store

GRID = Grid(UTM, LEFT, TOP, N)
AXES = ("time", "y", "x")
NUMBERS = ("scale_factor", "add_offset", "_FillValue", "missing_value", "valid_range", "valid_min")
NUMBERS += ("valid_max", "_Unsigned", "flag_masks", "flag_values", "nodata")
TEXTS = ("units", "calendar", "standard_name", "axis", "grid_mapping", "coordinates", "crs_wkt")
TEXTS += ("spatial_ref", "epsg_code", "GeoTransform", "grid_mapping_name", "proj4", "crs", "NAME")
VALUES = st.one_of(
    st.sampled_from(["", " ", "NaN", "Infinity", "m", "time", "x", "x: y", "degrees", "true", ":"]),
    st.sampled_from(["AAAAAAAA+H8=", "1e400", "0x7fc0", "days since", "days since 2020-99-99"]),
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 0.5, 1e308, float("nan"), float("inf"), True]),
    st.sampled_from([[], [1, 2], [0.0, 1.0], ["a", "b"], [1, 2, 3], [float("nan")] * 2]),
    st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8),
    st.integers(-70_000, 70_000),
    st.floats(width=32),
)
DTYPES = ("i1", "u1", "i2", "u2", "i4", "i8", "f4", "f8", "?")


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    places=st.lists(
        st.tuples(
            st.sampled_from(["vv", "mask", "time", "x", "y", "spatial_ref"]),
            st.sampled_from([*NUMBERS, *TEXTS]),
            VALUES,
        ),
        min_size=1,
        max_size=3,
    ),
    dtypes=st.tuples(*[st.sampled_from(DTYPES)] * 3),
)
def test_any_value_of_any_attribute(tmp_path_factory, kind, places, dtypes):
    bands = np.full((2, N, N), -12)
    variables = axes_of(2)
    variables["time"] = (("time",), np.arange(2).astype(dtypes[2]), variables["time"][2])
    variables["vv"] = (AXES, bands.astype(dtypes[0]), {})
    variables["vh"] = (AXES, (bands - 7).astype("f4"), {})
    variables["mask"] = (AXES, (bands * 0).astype(dtypes[1]), {})
    for name, key, value in places:
        axes, numbers, attributes = variables[name]
        variables[name] = (axes, numbers, {**attributes, key: value})
    path = tmp_path_factory.mktemp("odd") / "odd_cube"
    write_store(path, kind, variables)
    reader = (NetcdfCube if kind == "netcdf" else ZarrCube)(
        path=path,
        modality="sar",
        bands={"VV": "vv", "VH": "vh"},
        mask="mask",
        masked=(1,),
    )
    try:
        reader.check()
        assert reader.place().shape == (N, N)
        for frames in reader.read(GRID):
            assert np.isfinite(np.moveaxis(frames.array, 1, -1)[frames.valid]).all()
    except InputError as error:
        line = str(error)
    else:
        return  # the attribute says nothing, or what it says was done
    assert "odd_cube" in line and "\n" not in line


@pytest.mark.parametrize("value", [h5py.Empty("f"), h5py.Empty("S1")])
@pytest.mark.parametrize("key", ["_FillValue", "scale_factor", "units", "grid_mapping"])
def test_an_empty_attribute_says_nothing(tmp_path, key, value):
    variables = axes_of(1)
    for band, level in (("vv", -12), ("vh", -19)):
        variables[band] = (AXES, np.full((1, N, N), level, np.float32), {key: value})
    path = write_store(tmp_path / "cube.nc", "netcdf", variables)
    reader = NetcdfCube(path=path, modality="sar", bands={"VV": "vv", "VH": "vh"})
    reader.check()
    assert reader.read(GRID)[0].valid.all()
