"""Errors of libraries are a file's; errors of this program's own code are not."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio

from data.errors import InputError
from data.prepare.contract import faults
from data.prepare.contract.blame import blamed_on, is_of_library
from data.prepare.contract.files import reading

LIBRARIES = {
    "json": lambda: json.loads("{"),
    "GDAL": lambda: rasterio.open("/nowhere/at/all.tif"),
    "key": lambda: rasterio.crs.CRS.from_dict(init="nonsense:1"),
    "memory": lambda: np.empty((2**40, 2**18)),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_raises_names_the_file(name):
    with pytest.raises(InputError, match="^a.tif: cannot be used [(].+[)]$"), blamed_on("a.tif"):
        LIBRARIES[name]()


def test_what_own_code_raises_stays():
    with pytest.raises(TypeError) as caught, blamed_on("a.tif"):
        faults.sar_to_db(3 + None)
    assert not is_of_library(caught.value)
    with pytest.raises(AttributeError) as caught, blamed_on("a.tif"):
        faults.poor_frames(None)
    assert not is_of_library(caught.value)


@pytest.mark.parametrize(
    "decode",
    [
        lambda: struct.unpack("<d", b"short"),
        lambda: zlib.decompress(b"no stream"),
        lambda: b"\xff".decode("utf-8"),
        lambda: {}["scale_factor"],
        lambda: 1 // 0,
        lambda: np.empty((2**40, 2**18)),
    ],
)
def test_what_is_made_of_a_file_is_the_files_too(decode):
    message = "a.nc: expected a NetCDF file, found a damaged"
    with pytest.raises(InputError, match=message), reading(Path("a.nc"), "a NetCDF file"):
        decode()


def test_a_bug_while_a_file_is_read_is_no_fault_of_the_file():
    with pytest.raises(AttributeError), reading(Path("a.nc"), "a NetCDF file"):
        faults.poor_frames(None)
