"""Frames that cover different parts of a tile become one, pixel by pixel as written."""

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.prepare.contract.neighbours import join_neighbours
from data.prepare.contract.source import Frames

SIDE = 8


def frames_of(modality, columns, dates, *, times=None, values=None) -> Frames:
    """Frames that are valid in these columns and hold 100, 101, ... where no values are given."""
    bands = {"ms": 10, "sar": 2, "hr": 3}[modality]
    dtype = {"ms": np.uint16, "sar": np.float32, "hr": np.uint8}[modality]
    array = np.zeros((len(dates), bands, SIDE, SIDE), dtype)
    valid = np.zeros((len(dates), SIDE, SIDE), bool)
    for i, where in enumerate(columns):
        valid[i, :, where] = True
        array[i, :, :, where] = 100 + i if values is None else values[i][:, :, where]
    return Frames(modality=modality, array=array, valid=valid, dates=dates, source="", times=times)


def join(frames) -> tuple[Frames, int]:
    """The joined series, and how many frames went into others."""
    joined = join_neighbours(frames)
    return joined.frames, joined.into_others


WEST, EAST = slice(0, 3), slice(3, SIDE)


def test_two_halves_of_a_day_are_one_frame():
    frames, joined = join(frames_of("ms", [WEST, EAST], ["2022-08-17"] * 2))
    assert joined == 1 and frames.dates == ["2022-08-17"] and frames.valid.all()
    assert (frames.array[0, :, :, :3] == 100).all() and (frames.array[0, :, :, 3:] == 101).all()


def test_other_days_stay_apart_but_for_the_sheets_of_a_year():
    days = ["2022-05-17", "2022-08-18"]
    frames, joined = join(frames_of("ms", [WEST, EAST], days))
    assert joined == 0 and frames.dates == days
    frames, joined = join(frames_of("hr", [WEST, EAST], days))
    assert joined == 1 and frames.dates == ["2022-08-18"]  # of the larger part
    frames, joined = join(frames_of("hr", [WEST, EAST], ["2021-12-31", "2022-01-01"]))
    assert joined == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_fullest_frame_wins_and_the_next_ones_fill(data):
    count = data.draw(st.integers(1, 4))
    frames = frames_of("ms", [slice(0, 0)] * count, ["2022-08-17"] * count)
    frames.array[:] = np.arange(1, count + 1)[:, None, None, None]
    bits = data.draw(st.lists(st.booleans(), min_size=count * 64, max_size=count * 64))
    frames.valid[:] = np.array(bits).reshape(count, SIDE, SIDE)
    valid = frames.valid.copy()
    order = sorted(range(count), key=lambda i: -valid[i].sum())
    expected = np.zeros((SIDE, SIDE), int)
    for row in range(SIDE):
        for column in range(SIDE):
            for i in order:
                if valid[i, row, column]:
                    expected[row, column] = i + 1
                    break
    joined, _ = join(frames)
    fullest = int(joined.valid.sum(axis=(1, 2)).argmax())
    np.testing.assert_array_equal(joined.valid[fullest], valid.any(axis=0))
    covered = expected > 0
    np.testing.assert_array_equal(joined.array[fullest, 0][covered], expected[covered])


def speckle(seed) -> np.ndarray:
    """dB (2, H, W) of one look at a field."""
    power = np.random.default_rng(seed).gamma(4.4, 0.06 / 4.4, (2, SIDE, SIDE))
    return (10 * np.log10(power)).astype(np.float32)


def test_slices_of_one_pass_are_joined_and_other_orbits_are_not():
    days, columns = ["2022-08-17"] * 2, [slice(0, 5), slice(3, SIDE)]
    one_pass = frames_of("sar", columns, days, values=[speckle(0), speckle(0)])
    assert join(one_pass)[1] == 1
    orbits = frames_of("sar", columns, days, values=[speckle(0), speckle(1)])
    frames, joined = join(orbits)
    assert joined == 0 and len(frames.dates) == 2


def test_parts_of_sar_side_by_side_without_times_stay_apart_and_are_told():
    """Two passes of unknown time must not be mixed; overlap or times tell one pass."""
    days = ["2022-08-17", "2022-08-17", "2022-08-20"]
    midnight = [datetime(2022, 8, 17), datetime(2022, 8, 17), datetime(2022, 8, 20)]
    for times in (None, midnight):
        joined = join_neighbours(frames_of("sar", [WEST, EAST, WEST], days, times=times))
        assert joined.into_others == 0 and joined.frames.dates == days
        assert joined.strangers == ["2022-08-17"]
    seconds = [datetime(2022, 8, 17, hour) for hour in (5, 17)]
    apart = join_neighbours(frames_of("sar", [WEST, EAST], days[:2], times=seconds))
    assert apart.into_others == 0 and not apart.strangers
    nothing = join_neighbours(frames_of("sar", [WEST, slice(0, 0)], days[:2]))
    assert not nothing.strangers


@pytest.mark.parametrize("hour, joined", [(5, 1), (17, 0)])
def test_times_decide_for_sar_where_they_are_known(hour, joined):
    times = [datetime(2022, 8, 17, 5, 30, 0), datetime(2022, 8, 17, hour, 30, 25)]
    frames = frames_of("sar", [WEST, EAST], ["2022-08-17"] * 2, times=times)
    assert join(frames)[1] == joined


@pytest.mark.parametrize("modality", ["sar", "ms"])
def test_a_pass_at_midnight_is_one_and_bears_the_day_of_its_larger_part(modality):
    days = ["2022-08-17", "2022-08-18"]
    seconds = [datetime(2022, 8, 17, 23, 59, 50), datetime(2022, 8, 18, 0, 0, 15)]
    frames, joined = join(frames_of(modality, [WEST, EAST], days, times=seconds))
    assert joined == 1 and frames.dates == ["2022-08-18"] and frames.valid.all()
    hours = [datetime(2022, 8, 17, 23, 30), datetime(2022, 8, 18, 0, 15)]
    assert join(frames_of(modality, [WEST, EAST], days, times=hours))[1] == 0
    unknown = [datetime(2022, 8, 17), datetime(2022, 8, 18)]
    assert join(frames_of(modality, [WEST, EAST], days, times=unknown))[1] == 0
