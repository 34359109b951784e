"""Cubes written by h5py and zarr with numbers of a formula, read back onto a grid."""

import h5py
import numpy as np
import pytest
import zarr
from affine import Affine

from data.errors import InputError
from data.prepare.place.georeference import Georeference
from data.prepare.readers.cube import NetcdfCube, ZarrCube
from tests.unit.data.prepare.readers.cubes import fill_cube
from tests.unit.data.prepare.readers.scene import (
    BANDS,
    GRID,
    LEFT,
    SCENE,
    TOP,
    UTM,
    clear,
    expected,
)


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("kind", ["netcdf", "zarr 2", "zarr 3"])
def test_cubes_with_names_of_their_own(tmp_path, kind, rising):
    hours = [36, 12, 24 * 60 + 12]  # January 2nd, 1st, March 1st of a leap year
    names = ("t", "north", "east")
    if kind == "netcdf":
        with h5py.File(tmp_path / "cube", "w") as file:
            fill_cube(file, rising, hours, str.encode, names)
    else:
        fill_cube(
            zarr.open_group(str(tmp_path / "cube"), mode="w", zarr_format=int(kind[-1])),
            rising,
            hours,
            names=names,
        )
    reader = (NetcdfCube if kind == "netcdf" else ZarrCube)(
        path=tmp_path / "cube",
        modality="ms",
        bands={band: f"rho_{band}" for band in BANDS},
        time="t",
        x="east",
        y="north",
        mask="scl",
        masked=(9,),
    )
    reader.check()
    place = Georeference(Affine(10, 0, LEFT, 0, -10, TOP), UTM)
    assert reader.place().georeference == place
    frames = reader.read(GRID)[0]
    assert frames.dates == ["2020-01-01", "2020-01-02", "2020-03-01"]
    for i, band in enumerate(BANDS):
        for frame, hour in enumerate(sorted(hours)):
            np.testing.assert_array_equal(
                frames.array[frame, i], (expected(band) + hour).astype(int)
            )
    np.testing.assert_array_equal(
        frames.valid, np.stack([np.ones((16, 16), bool), clear(), np.ones((16, 16), bool)])
    )


def test_zarr_chunks_that_were_never_written_are_no_observation(tmp_path):
    group = zarr.open_group(str(tmp_path / "cube"), mode="w", zarr_format=3)
    for name, values in (
        ("time", np.array([0])),
        ("y", TOP - 5.0 - 10 * np.arange(SCENE)),
        ("x", LEFT + 5.0 + 10 * np.arange(SCENE)),
    ):
        group.create_array(name, data=values)
    group["time"].attrs["units"] = "days since 2021-02-03"
    for name, level in (("vv", -10), ("vh", -16)):
        array = group.create_array(
            name, shape=(1, SCENE, SCENE), chunks=(1, 24, 24), dtype="float32"
        )
        array[:, :24] = level  # the grid's rows run from 12 to 28
    reader = ZarrCube(
        path=tmp_path / "cube", modality="sar", bands={"VV": "vv", "VH": "vh"}, crs="EPSG:32632"
    )
    reader.check()
    frames = reader.read(GRID)[0]
    assert (
        frames.dates == ["2021-02-03"]
        and frames.valid[0, :12].all()
        and not frames.valid[0, 12:].any()
    )
    torn = next(
        path
        for path in (tmp_path / "cube/vh").rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )
    for path in (tmp_path / "cube/vh").rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(InputError, match="cube: expected numbers of 'vh', found a damaged"):
        reader.read(GRID)
    assert torn.stat().st_size == 5


def test_cubes_that_are_not_as_said_are_refused(tmp_path):
    with h5py.File(tmp_path / "cube.nc", "w") as file:
        fill_cube(file, False, [0, 24], str.encode)
    keys = {
        "path": tmp_path / "cube.nc",
        "modality": "ms",
        "bands": {band: f"rho_{band}" for band in BANDS},
    }
    NetcdfCube(**keys).check()
    for change, words in (
        ({"bands": {**keys["bands"], "B12": "rho"}}, "cube.nc: .*variable 'rho'"),
        ({"x": "lon"}, "variable 'lon'"),
        ({"time": "x"}, "x: units '': expected '<unit> since <date>'"),
        ({"bands": {**keys["bands"], "B12": "crs"}}, r"crs: expected time x y x x"),
    ):
        with pytest.raises(InputError, match=words):
            NetcdfCube(**{**keys, **change}).check()
    for change, words in (
        ({"crs": "EPSG:1"}, "crs 'EPSG:1': expected a projected or geographic CRS"),
        ({"modality": "lidar"}, "modality 'lidar': expected one of"),
        ({"mask": "scl"}, "need each other"),
    ):
        (fault,) = NetcdfCube(**{**keys, **change}).check_keys()
        assert words in fault
    with h5py.File(tmp_path / "cube.nc", "a") as file:
        file["time"].attrs["calendar"] = "noleap"
        del file["crs"].attrs["crs_wkt"]
    with pytest.raises(InputError, match="no variable says the CRS; give the key 'crs'"):
        NetcdfCube(**keys).check()
    with pytest.raises(InputError, match="calendar of real days.*'noleap'"):
        NetcdfCube(**keys, crs="EPSG:32632").check()


@pytest.mark.parametrize("name", ["{}", "rho_{}", "S2_{}_10m"])
def test_variables_are_found_by_any_name(tmp_path, name):
    hours = [12]
    with h5py.File(tmp_path / "cube.nc", "w") as file:
        fill_cube(file, False, hours, str.encode)
        for band in BANDS:
            file.move(f"rho_{band}", name.format(band.replace("B0", "B")))
    common = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16")
    for bands in (BANDS, (*common, "swir22"), dict(zip((*common, "B12"), BANDS))):
        reader = NetcdfCube(path=tmp_path / "cube.nc", modality="ms", bands=bands)
        assert not reader.check_keys()
        reader.check()
        array = reader.read(GRID)[0].array[0]
        for i, band in enumerate(BANDS):
            np.testing.assert_array_equal(array[i], (expected(band) + 12).astype(int))
    for bands, message in (
        ({band: number for number, band in enumerate(BANDS, 1)}, "no band number 1; the file has"),
        (dict.fromkeys(BANDS, "B2"), "name one band of the file twice"),
    ):
        reader = NetcdfCube(path=tmp_path / "cube.nc", modality="ms", bands=bands)
        with pytest.raises(InputError, match=f"cube.nc: .*{message}"):
            reader.check()
