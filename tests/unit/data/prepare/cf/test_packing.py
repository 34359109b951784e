"""Numbers of a variable by its attributes, against the conventions' formulas in float64."""

import base64
import struct

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.cf.packing import packing_of
from data.prepare.cf.variable import find_variable
from tests.unit.data.prepare.cf.stores import KINDS, write_store

NAN_TEXT = base64.b64encode(struct.pack("<d", np.nan)).decode()
FILL_TEXT = base64.b64encode(struct.pack("<d", -9999.0)).decode()


@pytest.fixture(params=KINDS)
def unpacked(request, tmp_path):
    """Write a variable, read it again, and give what it means with NaN where it says nothing."""

    def make(numbers, **attributes):
        path = write_store(
            tmp_path / "a", request.param, {"B": (("i",), np.asarray(numbers), attributes)}
        )
        opened = (
            h5py.File(path) if request.param == "netcdf" else zarr.open_group(str(path), mode="r")
        )
        variable = find_variable(path, opened, "B")
        result = packing_of(variable).unpacked(variable.read())
        if request.param == "netcdf":
            opened.close()
        return result

    return make


@pytest.mark.parametrize(
    "numbers, attributes, expected",
    [
        (np.int16([1500, -9999]), {"missing_value": np.int16(-9999)}, [1500, np.nan]),
        (np.int16([1, 2, 3]), {"missing_value": np.int16([1, 3])}, [np.nan, 2, np.nan]),
        (np.int16([1, 2, 3]), {"missing_value": 1, "_FillValue": 3}, [np.nan, 2, np.nan]),
        (np.float32([0.5, np.nan, -9999]), {"_FillValue": -9999.0}, [0.5, np.nan, np.nan]),
        (np.float32([0.5, np.nan]), {"_FillValue": "NaN"}, [0.5, np.nan]),
        (np.float32([0.5, np.nan]), {"_FillValue": NAN_TEXT}, [0.5, np.nan]),
        (np.float32([0.5, -9999]), {"_FillValue": FILL_TEXT}, [0.5, np.nan]),
        (np.float32([0.5, np.inf, -np.inf]), {"_FillValue": "Infinity"}, [0.5, np.nan, -np.inf]),
        (np.float32([0.5, np.inf, -np.inf]), {"_FillValue": "-Infinity"}, [0.5, np.inf, np.nan]),
        (np.float32([0.5, 1e20]), {"_FillValue": 1e20}, [0.5, np.nan]),
        (np.int16([5, -9999]), {"_FillValue": "-9999"}, [5, np.nan]),
        (np.uint8([5, 7]), {"_FillValue": "NaN"}, [5, 7]),
        (np.uint16([0, 5]), {"nodata": 0}, [np.nan, 5]),
        (np.int16([-1, 0, 5, 11]), {"valid_range": np.int16([0, 10])}, [np.nan, 0, 5, np.nan]),
        (np.int16([-1, 0, 5, 11]), {"valid_min": 0, "valid_max": 10}, [np.nan, 0, 5, np.nan]),
        (np.float32([-0.1, 0.2]), {"valid_min": 0.0}, [np.nan, np.float32(0.2)]),
        (np.int8([-1, 1]), {"_Unsigned": "true"}, [255, 1]),
        (np.int8([-1, -2, 1]), {"_Unsigned": "true", "_FillValue": np.int8(-1)}, [np.nan, 254, 1]),
        (np.int16([-2, 1]), {"_Unsigned": "true", "_FillValue": 65534}, [np.nan, 1]),
        (np.int8([-2, 1]), {"_Unsigned": "true", "valid_range": [0, -3]}, [np.nan, 1]),
        (np.uint8([255, 1]), {"_Unsigned": "false"}, [-1, 1]),
        (np.int64([2**62 + 1, 2**62]), {"_FillValue": 2**62 + 1}, [np.nan, 2.0**62]),
    ],
)
def test_what_is_missing(unpacked, numbers, attributes, expected):
    np.testing.assert_array_equal(unpacked(numbers, **attributes), expected)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-30_000, 30_000), min_size=1, max_size=6),
    st.floats(1e-6, 1e3),
    st.floats(-1e3, 1e3),
)
def test_scale_and_offset(tmp_path_factory, numbers, scale, offset):
    path = tmp_path_factory.mktemp("packed") / "a.nc"
    attributes = {"scale_factor": scale, "add_offset": offset, "_FillValue": np.int16(-30_000)}
    write_store(path, "netcdf", {"B": (("i",), np.int16(numbers), attributes)})
    with h5py.File(path) as file:
        variable = find_variable(path, file, "B")
        result = packing_of(variable).unpacked(variable.read())
    expected = [np.nan if n == -30_000 else np.float64(n) * scale + offset for n in numbers]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "numbers, attributes, words",
    [
        (np.int16([1]), {"scale_factor": "ten"}, "a: B: attribute scale_factor: .*'ten'"),
        (np.int16([1]), {"scale_factor": [1.0, 2.0]}, "scale_factor: expected one number"),
        (np.int16([1]), {"scale_factor": 0.0}, "scale_factor: expected a number other than 0"),
        (np.int16([1]), {"add_offset": "NaN"}, "add_offset: expected a number, found nan"),
        (np.uint16([1]), {"_FillValue": -9999}, "_FillValue: -9999 cannot stand in uint16"),
        (np.int16([1]), {"missing_value": 0.5}, "missing_value: 0.5 cannot stand in int16"),
        (np.float32([1]), {"_Unsigned": "true"}, "_Unsigned: expected true or false of integers"),
        (np.int16([1]), {"_Unsigned": "yes"}, "_Unsigned: .* found 'yes'"),
        (np.int16([1]), {"valid_range": [1, 2, 3]}, "valid_range: expected two numbers"),
        (np.int16([1]), {"valid_range": [9, 1]}, "valid_range: expected a range, found 9 to 1"),
        (np.int16([1]), {"valid_range": [0, 100], "valid_max": 50}, r"\[0, 100\] contradicts"),
        (np.int16([1]), {"scale_factor": 1e-4, "valid_range": [0.0, 1.0]}, "valid_range: expected"),
        (np.int16([1]), {"scale_factor": 1e-4, "valid_max": 1}, "valid_max: expected a range of"),
    ],
)
def test_attributes_that_cannot_be_honoured_are_named(unpacked, numbers, attributes, words):
    with pytest.raises(InputError, match=words) as refused:
        unpacked(numbers, **attributes)
    assert "\n" not in str(refused.value)


def test_what_was_never_written_counts_where_no_attribute_says_more(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        netcdf = file.create_dataset("netcdf", (4,), "i2", chunks=(2,), fillvalue=-32767)
        netcdf[:2] = [0, 5]
        netcdf.attrs["scale_factor"] = 0.5
        file.create_dataset("plain", (4,), "i2", chunks=(2,))[:2] = [0, 5]
        for name, expected in (("netcdf", [0, 2.5, np.nan, np.nan]), ("plain", [0, 5, 0, 0])):
            variable = find_variable(tmp_path / "a.nc", file, name)
            packing = packing_of(variable, unwritten=True)
            np.testing.assert_array_equal(packing.unpacked(variable.read()), expected)
