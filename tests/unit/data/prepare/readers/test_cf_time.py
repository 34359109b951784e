"""Time axes of the CF conventions, against dates that the conventions and calendars give."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.readers.cf_time import cf_times

PATH = Path("cube.nc")


def times(axis, units, calendar=""):
    return cf_times(PATH, "time", np.array(axis), {"units": units, "calendar": calendar})


@pytest.mark.parametrize(
    "number, units, expected",
    [
        (1, "days since 2015-06-23", "2015-06-24"),
        (1.5, "days since 2015-6-23", "2015-06-24T12:00"),
        (13, "hours since 2019-12-31 12:00:00", "2020-01-01T01:00"),
        (90, "minutes since 2015-06-23T00:00:00Z", "2015-06-23T01:30"),
        (-1, "seconds since 2017-08-04 10:53:28", "2017-08-04T10:53:27"),
        (1500, "milliseconds since 1970-01-01", "1970-01-01T00:00:01.5"),
        (7, "microseconds since 1970-01-01 00:00:00.0", "1970-01-01T00:00:00.000007"),
        (1_600_000_000_000_000_000, "nanoseconds since 1970-01-01", "2020-09-13T12:26:40"),
        (0, "days since 2015-06-23 00:00:00 UTC", "2015-06-23"),
        (0, "days since 2015-06-23 00:00:00 +01:00", "2015-06-22T23:00"),
    ],
)
def test_units(number, units, expected):
    assert times([number], units) == [datetime.fromisoformat(expected)]


def test_the_standard_calendar_changes_in_1582():
    """From year 1 it counts two days more than the calendar of today carried back."""
    units = "days since 0001-01-01"
    assert times([735_000], units, "standard") == [datetime(2013, 5, 11)]
    assert times([735_000], units, "proleptic_gregorian") == [datetime(2013, 5, 13)]


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), st.integers(0, 2**31))
def test_seconds_are_exact(start, seconds):
    start = start.replace(microsecond=0)
    (time,) = times([seconds], f"seconds since {start:%Y-%m-%d %H:%M:%S}")
    assert (time - start).total_seconds() == seconds


def test_bytes_and_one_number():
    attributes = {"units": b"days since 2015-06-23", "calendar": b"standard"}
    assert cf_times(PATH, "time", np.array(2), attributes) == [datetime(2015, 6, 25)]


@pytest.mark.parametrize(
    "axis, units, calendar, words",
    [
        ([0], "", "", "expected units like 'days since 2015-06-23'"),
        ([0], "days", "", "expected units like"),
        ([0], "days since 2015-06-23", "noleap", "standard calendar.*'noleap'"),
        ([0], "days since yesterday", "", "expected times in 'days since yesterday'"),
        ([0], "fortnights since 2015-06-23", "", "expected times in"),
        ([np.nan], "days since 2015-06-23", "", "must be finite"),
        ([1e30], "days since 2015-06-23", "", "expected times in"),
        ([9_000_000], "days since 2015-06-23", "", "expected times in"),
        ([[0, 1]], "days since 2015-06-23", "", "one dimension"),
        (["x"], "days since 2015-06-23", "", "expected times in"),
    ],
)
def test_what_is_no_time_is_refused(axis, units, calendar, words):
    with pytest.raises(InputError, match=words) as refused:
        times(axis, units, calendar)
    assert "cube.nc" in str(refused.value) and "\n" not in str(refused.value)
