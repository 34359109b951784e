"""Files that cannot be opened are told by what they are."""

import os
import signal
import subprocess
import sys

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from scipy.io import netcdf_file

from data.errors import InputError
from data.prepare.contract.files import open_hdf5, open_zarr

HOLD = """
import sys, h5py
with h5py.File(sys.argv[1], "a") as file:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """An HDF5 file that another process has open for writing."""
    path = tmp_path / "cube.nc"
    with h5py.File(path, "w", libver="latest") as file:
        file["B02"] = np.zeros(3)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"open\n"
    yield path, process
    process.kill()
    process.communicate()


def refusal(opener, path):
    """The line with which a file is refused."""
    with pytest.raises(InputError) as refused, opener(path):
        pass
    line = str(refused.value)
    assert str(path) in line and "\n" not in line
    return line


def test_a_file_that_another_program_writes(held):
    path, _ = held
    line = refusal(open_hdf5, path)
    assert "another program has it open for writing" in line and "damaged" not in line
    assert "try again" in line and "HDF5_USE_FILE_LOCKING=FALSE" in line


def test_a_file_whose_writer_was_killed(held):
    path, process = held
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "h5clear -s cube.nc" in refusal(open_hdf5, path)


@pytest.mark.parametrize("version, name", [(1, "NetCDF-3 (classic)"), (2, "64-bit offset")])
def test_netcdf_3_is_named(tmp_path, version, name):
    path = tmp_path / "old.nc"
    with netcdf_file(path, "w", version=version) as file:
        file.createDimension("x", 3)
        file.createVariable("x", "f8", ("x",))[:] = 0
    line = refusal(open_hdf5, path)
    assert name in line and "nccopy -k netCDF-4 old.nc new.nc" in line


@pytest.mark.parametrize(
    "start, name",
    [
        (b"\x0e\x03\x13\x01....", "HDF4"),
        (b"GRIB....", "GRIB"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x1f\x8b\x08....", "gunzip a.nc"),
        (b"", "an empty file"),
        (b"anything else", "damaged or other file"),
    ],
)
def test_other_files_are_named(tmp_path, start, name):
    path = tmp_path / "a.nc"
    path.write_bytes(start)
    assert name in refusal(open_hdf5, path)


@pytest.mark.parametrize("codec", ["gzip", "zlib", "bz2", "lzma", "blosc", "zstd", "lz4"])
def test_chunks_that_do_not_decode(tmp_path, codec):
    """Each codec raises errors of its own."""
    compressor = numcodecs.get_codec({"id": codec})
    path = tmp_path / "cube.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    array = group.create_array("B", shape=(64,), chunks=(64,), dtype="f4", compressors=compressor)
    array[...] = np.arange(64)
    chunk = path / "B" / "0"
    sound = chunk.read_bytes()
    for damaged in (sound[:20], sound[::-1]):
        chunk.write_bytes(damaged)
        words = r"cube\.zarr: expected .* found a damaged"
        with pytest.raises(InputError, match=words), open_zarr(path) as opened:
            opened["B"][...]
