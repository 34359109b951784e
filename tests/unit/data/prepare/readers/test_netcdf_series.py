"""Sentinel-2, Sentinel-1 and labels in NetCDF, against numbers that the test writes itself."""

from datetime import datetime, timedelta

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.contract.sentinel2 import COARSE_BANDS, FINE_BANDS
from data.prepare.place.grid import Grid
from data.prepare.readers.cube import NO_FRAMES
from data.prepare.readers.netcdf_series import NetcdfLabels, NetcdfOptical, NetcdfSar, pairs_of
from data.tiles.classes import INDEX
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED
from tests.unit.data.prepare.cf.stores import EAST, LEFT, NORTH, TOP, UTM, N, axes_of, write_store

GRID = Grid(UTM, LEFT, TOP, N)
AXES = ("time", "y", "x")
COARSE_AXES = {
    "y": (("y",), TOP - 10 - 20 * np.arange(N // 2), {}),
    "x": (("x",), LEFT + 10 + 20 * np.arange(N // 2), {}),
}
SECONDS = {"units": "seconds since 2020-05-01T10:30:00"}
DAY = 86_400


def optical(folder, times=(0, DAY), times_20m=(0, DAY), scene=None, **packing):
    """Both files: a band is 2000 + 100 a frame, packed; the scene is vegetation."""
    packing = packing or {"scale_factor": 1e-4}

    def numbers(count, size, dtype):
        planes = 2000 + 100 * np.arange(count)[:, None, None]
        return np.broadcast_to(planes, (count, size, size)).astype(dtype)

    fine = axes_of(0, time=(("time",), np.array(times), SECONDS))
    for band in FINE_BANDS:
        fine[band] = (AXES, numbers(len(times), N, "i2"), packing)
    coarse = axes_of(0, time=(("time",), np.array(times_20m), SECONDS), **COARSE_AXES)
    for band in COARSE_BANDS:
        coarse[band] = (AXES, numbers(len(times_20m), N // 2, "i2"), packing)
    if scene is None:
        scene = np.full((len(times_20m), N // 2, N // 2), 4, "u1")
    coarse["SCL"] = (AXES, scene, {"scale_factor": 1})
    return NetcdfOptical(
        write_store(folder / "10m.nc", "netcdf", fine),
        write_store(folder / "20m.nc", "netcdf", coarse),
    )


def only(reader, grid=GRID):
    reader.check()
    (frames,) = reader.read(grid)
    return frames


def test_the_offset_of_a_file_is_added(tmp_path):
    frames = only(optical(tmp_path, scale_factor=1e-4, add_offset=-0.1, _FillValue=np.int16(-1)))
    assert frames.valid.all() and frames.array.dtype == np.uint16
    for frame, raw in enumerate((2000, 2100)):
        assert (frames.array[frame] == round((raw * 1e-4 - 0.1) * 1e4)).all()


def test_each_band_has_numbers_of_its_own(tmp_path):
    reader = optical(tmp_path)
    variables = axes_of(0, time=(("time",), np.array([0, DAY]), SECONDS))
    for number, band in enumerate(FINE_BANDS, start=1):
        raw = np.full((2, N, N), 900, "i2")
        variables[band] = (AXES, raw, {"scale_factor": number * 1e-4, "add_offset": number * 1e-2})
    write_store(reader.path, "netcdf", variables)
    frames = only(reader)
    for number, band in enumerate(FINE_BANDS, start=1):
        position = MODALITIES["ms"].bands.index(band)
        assert (frames.array[:, position] == number * 900 + number * 100).all()


@pytest.mark.parametrize("spoilt", [np.nan, 3.5, 255])
def test_a_scene_without_a_code_is_not_clear(tmp_path, spoilt):
    scene = np.full((2, N // 2, N // 2), 4, np.float32)
    scene[0, 0, :] = spoilt
    reader = optical(tmp_path, scene=scene)
    with h5py.File(reader.path_20m, "a") as file:
        file["SCL"].attrs["_FillValue"] = np.float32(255)
    frames = only(reader)
    assert not frames.valid[0, :2].any() and frames.valid[0, 2:].all() and frames.valid[1].all()


@pytest.mark.parametrize("late", [1, -40, 3600, -37_000])
def test_files_whose_times_differ_by_less_than_a_day_are_joined(tmp_path, late):
    """Down to ten minutes past midnight of the same day."""
    frames = only(optical(tmp_path, times_20m=(late, DAY + late)))
    assert frames.dates == ["2020-05-01", "2020-05-02"]
    assert (frames.array[1] == 2100).all()


def test_files_without_a_day_in_common_are_refused(tmp_path):
    reader = optical(tmp_path, times_20m=(5 * DAY, 6 * DAY))
    reader.check()
    words = "10m.nc: no frame is of the same day as one of 20m.nc: 2020-05-01 to 2020-05-02 and"
    with pytest.raises(InputError, match=words):
        reader.read(GRID)


def test_an_empty_series_has_nothing(tmp_path):
    reader = optical(tmp_path, times=(), times_20m=())
    reader.check()
    assert reader.read(GRID) == [NO_FRAMES]


def test_a_frame_without_a_time_is_left_out_and_told(tmp_path):
    missing = np.iinfo("i8").min
    frames = only(optical(tmp_path, times=(0, missing, 2 * DAY), times_20m=(0, DAY, 2 * DAY)))
    assert frames.dates == ["2020-05-01", "2020-05-03"] and (frames.array[1] == 2200).all()
    assert frames.source == "10m.nc, 20m.nc (without 1 of 3 frames, whose time is missing)"


TIMES = st.lists(
    st.datetimes(datetime(2020, 1, 1), datetime(2020, 1, 9)), min_size=1, max_size=6, unique=True
)


@given(TIMES, st.randoms(use_true_random=False), st.integers(-5, 5))
def test_times_a_few_seconds_apart_find_each_other(times, random, seconds):
    """In any order of either file, where no other time is as near."""
    days = sorted({time.date() for time in times})
    times = [datetime.combine(day, datetime.min.time()) + timedelta(hours=10) for day in days]
    others = [time + timedelta(seconds=seconds) for time in times]
    random.shuffle(others)
    pairs = pairs_of(dict(enumerate(times)), dict(enumerate(others)))
    assert len(pairs) == len(times)
    for frame, other in pairs:
        assert others[other] - times[frame] == timedelta(seconds=seconds)


def test_two_frames_of_a_day_and_one_of_the_other_file():
    start = datetime(2020, 5, 1, 10, 30)
    fine = {0: start, 1: start + timedelta(seconds=20)}
    coarse = {0: start + timedelta(seconds=21)}
    assert pairs_of(fine, coarse) == [(1, 0)]
    midnight = {0: datetime(2020, 5, 1, 23, 59, 59)}
    assert pairs_of(midnight, {4: datetime(2020, 5, 2, 0, 0, 1)}) == [(0, 4)]
    assert pairs_of(midnight, {4: datetime(2020, 5, 2, 0, 9)}) == []


def test_sar_is_packed_by_polarisation_and_0_is_none(tmp_path):
    raw = np.full((1, N, N), -1200, "i2")
    raw[0, 0] = 0
    raw[0, 1] = -32768
    packing = {"_FillValue": np.int16(-32768)}
    variables = axes_of(
        1,
        y=(("y",), NORTH[::-1], {}),
        x=(("x",), EAST, {}),
        VV=(AXES, raw[:, ::-1], {"scale_factor": 0.01, **packing}),
        VH=(AXES, raw[:, ::-1], {"scale_factor": 0.015, "add_offset": -1.0, **packing}),
    )
    frames = only(NetcdfSar(write_store(tmp_path / "s1.nc", "netcdf", variables)))
    assert not frames.valid[0, :2].any() and frames.valid[0, 2:].all()
    np.testing.assert_allclose(frames.array[0, 0, 2:], -1200 * 0.01, rtol=1e-6)
    np.testing.assert_allclose(frames.array[0, 1, 2:], -1200 * 0.015 - 1, rtol=1e-6)


def test_labels_on_rising_rows_and_swapped_axes(tmp_path):
    cover = np.full((N, N), 10.0)  # trees
    cover[0] = np.nan
    crop = np.zeros((N, N), "u2")
    crop[:, 0] = 1100
    variables = axes_of(
        0,
        y=(("y",), NORTH[::-1], {}),
        LC=(("x", "y"), cover[::-1].T, {}),
        CT=(("y", "x"), crop[::-1], {"_FillValue": np.uint16(0)}),
    )
    del variables["time"]
    reader = NetcdfLabels(write_store(tmp_path / "labels.nc", "netcdf", variables))
    reader.check()
    drawn = reader.read(GRID)[0].draw(GRID)
    assert (drawn[:8, 8:] == UNLABELLED).all()
    assert len(np.unique(drawn[8:, 8:])) == 1 and drawn[8, 8] in INDEX.values()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"scale_factor": "x"}, "10m.nc: B02: attribute scale_factor"),
        ({"add_offset": -0.1}, "10m.nc: B02: attribute add_offset -0.1 without scale_factor"),
    ],
)
def test_numbers_that_cannot_be_read_are_named(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        optical(tmp_path, **change).check()


def test_20_m_pixels_from_another_corner_are_refused(tmp_path):
    reader = optical(tmp_path)
    with h5py.File(reader.path_20m, "a") as file:
        file["x"][...] += 10
    with pytest.raises(InputError, match="20m.nc: expected 20 m pixels from the same corner"):
        reader.check()


def test_bands_by_other_names(tmp_path):
    reader = optical(tmp_path)
    for path in (reader.path, reader.path_20m):
        with h5py.File(path, "a") as file:
            for band in (*FINE_BANDS, *COARSE_BANDS):
                if band in file:
                    file.move(band, band.replace("B0", "B"))
    assert (only(reader).array[0] == 2000).all()
