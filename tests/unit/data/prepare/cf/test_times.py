"""Time axes of the CF conventions, against dates that the conventions and calendars give."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.cf.times import times_of
from data.prepare.cf.variable import Variable

PATH = Path("cube.nc")


def axis_of(numbers, **attributes):
    """A time axis in memory: a zarr array in a dictionary."""
    numbers = np.array(numbers)
    array = zarr.create_array({}, shape=numbers.shape, dtype=numbers.dtype, attributes=attributes)
    array[...] = numbers
    return Variable(PATH, "time", array)


def times(axis, units, calendar="", **attributes):
    by_frame = times_of(axis_of(axis, units=units, calendar=calendar, **attributes))
    return list(by_frame.values())


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
        (3, "hours since 2020-05-01 +2", "2020-05-01T01:00"),
        (3, "hours since 2020-05-01T06", "2020-05-01T09:00"),
        (1055016, "hours since 1900-01-01 00:00:0.0", "2020-05-10"),
    ],
)
def test_units(number, units, expected):
    assert times([number], units) == [datetime.fromisoformat(expected)]


@pytest.mark.parametrize(
    "micro, day", [(-9, "2020-05-02"), (8, "2020-05-02"), (-999, "2020-05-01")]
)
def test_a_computed_day_is_not_the_one_before(micro, day):
    """Days as float64 are exact to some microseconds, and so may what they are made of be."""
    (time,) = times([1 + micro / 86_400e6], "days since 2020-05-01")
    assert time.date().isoformat() == day and time.microsecond in (0, 999_000)


def test_the_standard_calendar_changes_in_1582():
    """From year 1 it counts two days more than the calendar of today carried back."""
    units = "days since 0001-01-01"
    assert times([735_000], units, "standard") == [datetime(2013, 5, 11)]
    assert times([735_000], units, "proleptic_gregorian") == [datetime(2013, 5, 13)]


@pytest.mark.parametrize("sign, ahead, minutes", [("+", 2, 0), ("-", 5, 30), ("+", 14, 0)])
@pytest.mark.parametrize("form", ["T{:02}:00:00{}{:02}:{:02}", " {:02}:00:00 {}{:02}{:02}"])
def test_a_time_zone_is_taken_off(sign, ahead, minutes, form):
    clock = form.format(0, sign, ahead, minutes)
    away = timedelta(hours=ahead, minutes=minutes) * (1 if sign == "+" else -1)
    assert times([3], f"hours since 2020-05-01{clock}") == [datetime(2020, 5, 1, 3) - away]


@pytest.mark.parametrize(
    "units, seconds",
    [
        *[("weeks", 604_800), ("D", 86_400), ("Days", 86_400), ("hrs", 3600), ("h", 3600)],
        *[("min", 60), ("secs", 1), ("s", 1), ("msec", 1e-3), ("us", 1e-6), ("Nanoseconds", 1e-9)],
    ],
)
def test_every_unit_that_has_one_length(units, seconds):
    count = round(604_800 / seconds)
    assert times([count], f"{units} since 2020-05-01") == [datetime(2020, 5, 8)]


def test_the_julian_calendar_is_thirteen_days_behind():
    assert times([0], "days since 2020-05-01", "Julian") == [datetime(2020, 5, 14)]


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), st.integers(0, 2**31))
def test_seconds_are_exact(start, seconds):
    start = start.replace(microsecond=0)
    (time,) = times([seconds], f"seconds since {start:%Y-%m-%d %H:%M:%S}")
    assert (time - start).total_seconds() == seconds


def test_one_number():
    assert times(2, "days since 2015-06-23") == [datetime(2015, 6, 25)]


@pytest.mark.parametrize(
    "numbers, attributes",
    [
        (np.array([0.0, np.nan, 2.0]), {}),
        (np.array([0, np.iinfo("i8").min, 2]), {}),
        (np.array([0, np.iinfo("i4").min, 2], "i4"), {}),
        (np.array([0, -1, 2]), {"_FillValue": -1}),
        (np.array([0, 9999, 2]), {"missing_value": [-1, 9999]}),
        (np.array([0.0, 1e20, 2.0]), {"_FillValue": 1e20}),
    ],
)
def test_frames_without_a_time_are_left_out(numbers, attributes):
    axis = axis_of(numbers, units="days since 2020-05-01", **attributes)
    assert times_of(axis) == {0: datetime(2020, 5, 1), 2: datetime(2020, 5, 3)}


def test_packed_times():
    packed = {"scale_factor": 0.5, "add_offset": 10.0}
    assert times([2, 4], "days since 2020-05-01", **packed) == [
        datetime(2020, 5, 12),
        datetime(2020, 5, 13),
    ]


def test_times_of_numpy():
    stamps = np.array(["2020-05-01T10:00", "NaT"], "datetime64[ns]")
    assert times_of(axis_of(stamps)) == {0: datetime(2020, 5, 1, 10)}


@pytest.mark.parametrize(
    "axis, units, calendar, words",
    [
        ([0], "", "", "units '': expected '<unit> since <date>' such as 'days since 2015-06-23'"),
        ([0], "days", "", "expected '<unit> since <date>'"),
        ([0], "days since 2015-06-23", "noleap", "calendar of real days.*'noleap'"),
        ([0], "days since 2015-06-23", "360_day", "calendar of real days.*'360_day'"),
        ([0], "days since yesterday", "", "units 'days since yesterday': expected"),
        ([0], "fortnights since 2015-06-23", "", "units 'fortnights since"),
        ([0], "months since 2015-06-23", "", "units 'months since"),
        ([20200501.5], "day as %Y%m%d.%f", "", "units 'day as %Y%m%d.%f'"),
        # cftime passes over the last part of each of these
        ([0], "days since 2020-05-01 00:00:00 EST", "", "units 'days since 2020.*EST'"),
        ([0], "hours since 2020-05-01 00:00 UTC+2", "", "units 'hours"),
        ([0], "days since 01-05-2020", "", "units 'days since 01-05-2020'"),
        ([0], "days since 20-05-01", "", "units 'days since 20-05-01'"),
        ([1e30], "days since 2015-06-23", "", "expected times of 'time' in"),
        ([9_000_000], "days since 2015-06-23", "", "expected times of 'time' in"),
        ([[0, 1]], "days since 2015-06-23", "", "one dimension"),
        (["x"], "days since 2015-06-23", "", "expected numbers"),
    ],
)
def test_what_is_no_time_is_refused(axis, units, calendar, words):
    with pytest.raises(InputError, match=words) as refused:
        times(axis, units, calendar)
    assert "cube.nc" in str(refused.value) and "\n" not in str(refused.value)
