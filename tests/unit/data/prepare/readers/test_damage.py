"""Damaged and missing files of every format give one line with their path."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.contract.source import files_of
from data.prepare.readers.cube import NetcdfCube
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from data.prepare.readers.raster_labels import GeoTiffLabels
from tests.unit.data.prepare.readers.cubes import fill_cube
from tests.unit.data.prepare.readers.scene import (
    BANDS,
    GRID,
    SCENE,
    clouds,
    numbers,
    write,
)


def small_files(folder: Path) -> dict:
    """One reader of each format that is one file, by name."""
    write(folder / "a.tif", np.full((2, SCENE, SCENE), -9, np.float32), compress="deflate")
    write(folder / "codes.tif", clouds(), compress="deflate")
    write(folder / "a.jp2", numbers("B02", SCENE)[None], "JP2OpenJPEG")
    with h5py.File(folder / "cube.nc", "w") as file:
        fill_cube(file, False, [0, 24], str.encode)
    bands = {band: f"rho_{band}" for band in BANDS}
    return {
        "tiff": GeoTiffImage(folder / "a.tif", ("VV", "VH"), modality="sar", date="2020-01-01"),
        "jp2": GeoTiffBands(
            {"VV": folder / "a.jp2", "VH": folder / "a.jp2"}, modality="sar", date="2020-01-01"
        ),
        "labels": GeoTiffLabels(folder / "codes.tif", "flair"),
        "netcdf": NetcdfCube(path=folder / "cube.nc", modality="ms", bands=bands),
    }


@pytest.mark.parametrize("name", ["tiff", "jp2", "labels", "netcdf"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    share=st.floats(0, 0.98),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=8),
)
def test_damage_is_told_with_the_path_and_nothing_else(tmp_path, name, share, flips):
    reader = small_files(tmp_path)[name]
    path = files_of(reader)[0]
    reader.check(), reader.read(GRID)  # sound before
    torn = bytearray(path.read_bytes())
    for at, change in flips:
        torn[int(at * len(torn))] ^= change
    path.write_bytes(torn[: int(share * len(torn))] if not flips else torn)
    try:
        reader.check()
        place = reader.place()
        assert place.shape
        reader.read(GRID)
    except InputError as error:
        message = str(error)
    else:
        return  # the damage is in bytes that nothing reads
    assert path.name in message and "\n" not in message


@pytest.mark.parametrize("name", ["tiff", "jp2", "labels", "netcdf"])
def test_files_that_are_not_there(tmp_path, name):
    reader = small_files(tmp_path)[name]
    path = files_of(reader)[0]
    path.unlink()
    for call in (reader.check, reader.place, lambda: reader.read(GRID)):
        with pytest.raises(InputError, match=f"no file .*{path.name}"):
            call()


def test_bare_numbers_that_are_cut_off(tmp_path):
    """GDAL reads zeros behind the end, which are black ground in a picture."""
    path = tmp_path / "a.dat"
    write(path, np.full((3, SCENE, SCENE), 90, np.uint8), "ENVI")
    reader = GeoTiffImage(path, ("R", "G", "B"), modality="hr", date="2020-01-01")
    reader.check()
    path.write_bytes(path.read_bytes()[:-1])
    size = 3 * SCENE**2
    with pytest.raises(InputError, match=f"a.dat: expected {size} bytes .* found {size - 1}"):
        reader.check()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file; fetch it again"),
        (b"<!DOCTYPE html><html>", "a web page, perhaps of a log-in"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"CDF\x01" + bytes(60), "NetCDF-3"),
    ],
)
def test_what_stands_in_the_place_of_a_raster_is_named(tmp_path, content, words):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    reader = GeoTiffImage(path, ("VV", "VH"), modality="sar", date="2020-01-01")
    with pytest.raises(InputError, match=f"a.tif: expected a raster or a picture, found {words}"):
        reader.check()
