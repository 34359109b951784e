"""Time axes, as the CF conventions and UDUNITS write them."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

import cftime
import numpy as np

from data.errors import InputError
from data.prepare.cf.packing import packing_of
from data.prepare.cf.variable import Variable
from data.prepare.contract.files import reading

# Calendars of real days. The others (noleap, 360_day, ...) count the days of a climate model.
CALENDARS = ("standard", "gregorian", "proleptic_gregorian", "julian")
# UDUNITS' spelling of a unit -> the name that cftime knows, and how many of these it is.
UNITS = {
    **dict.fromkeys(("w", "week"), ("days", 7)),
    **dict.fromkeys(("d", "day"), ("days", 1)),
    **dict.fromkeys(("h", "hr", "hour"), ("hours", 1)),
    **dict.fromkeys(("min", "minute"), ("minutes", 1)),
    **dict.fromkeys(("s", "sec", "second"), ("seconds", 1)),
    **dict.fromkeys(("ms", "msec", "millisec", "millisecond"), ("milliseconds", 1)),
    **dict.fromkeys(("us", "usec", "microsec", "microsecond"), ("microseconds", 1)),
    **dict.fromkeys(("ns", "nsec", "nanosec", "nanosecond"), ("microseconds", 0.001)),
}
# cftime passes over what it does not understand ("+2", "EST", "T06"), so it is looked at here.
# Years have four digits, but for year 1, from which some count.
SINCE = re.compile(
    r"""(?P<unit>[a-z]+)\s+since\s+
    (?P<year>\d{4}|0{0,3}1)-(?P<month>\d{1,2})-(?P<day>\d{1,2})
    (?:(?:t|\s+)(?P<hour>\d{1,2})(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?P<part>\.\d*)?)?)?)?
    \s*(?:z|utc|gmt|(?P<sign>[+-])(?P<ahead>\d{1,2}):?(?P<minutes>\d{2})?)?""",
    re.VERBOSE,
)


def times_of(axis: Variable) -> dict[int, datetime]:
    """The times of an axis.

    Args:
        axis: (T,) or () numbers. The attribute "units" says '<unit> since <date>', "calendar" may
            say in which calendar. Arrays of numpy's own times need neither.

    Returns:
        The UTC time, without a time zone, by the number of its frame. Frames whose time is missing
        are left out.

    Raises:
        InputError: other units, the calendar of a model, or numbers that are no times.
    """
    if len(axis.shape) > 1:
        raise InputError(f"{axis.where}: a time axis has one dimension, found {axis.shape}")
    if axis.dtype.kind == "M":
        stamps = np.atleast_1d(axis.read()).astype("datetime64[us]").tolist()
        return {frame: stamp for frame, stamp in enumerate(stamps) if stamp is not None}
    units, count = _units(axis)
    calendar = axis.text("calendar").lower() or "standard"
    if calendar not in CALENDARS:
        raise InputError(
            f"{axis.where}: expected a calendar of real days, one of {list(CALENDARS)}, found "
            f"{calendar!r}, whose days are those of a model"
        )
    return _dates(axis, units, count=count, calendar=calendar)


def _dates(axis: Variable, units: str, *, count: float, calendar: str) -> dict[int, datetime]:
    """The numbers of an axis, each ``count`` of cftime's ``units``, as times."""
    numbers = np.atleast_1d(axis.read())  # T
    present = _present(axis, numbers)  # T
    packing = packing_of(axis)
    if packing.scale is None and not packing.offset:
        numbers = packing.as_stored(numbers)  # exact, as float64 is not
    else:
        numbers = packing.unpacked(numbers)
    times = {}
    for frame in np.flatnonzero(present).tolist():
        with reading(axis.path, f"times of {axis.name!r} in {axis.text('units')!r}"):
            time = cftime.num2date(
                numbers[frame] * count, units, calendar, only_use_cftime_datetimes=True
            )
            if calendar == "julian":
                time = time.change_calendar("proleptic_gregorian")
            times[frame] = datetime.fromisoformat(time.isoformat())
            if numbers.dtype.kind == "f":
                times[frame] = _rounded(times[frame])
    return times


def _rounded(moment: datetime) -> datetime:
    """The nearest millisecond: a day that was computed may end up some microseconds before it."""
    milliseconds = round(moment.microsecond / 1000)
    return moment.replace(microsecond=0) + timedelta(milliseconds=milliseconds)


def iso_days(times: Iterable[datetime]) -> list[str]:
    """The ISO day of each time."""
    return [time.date().isoformat() for time in times]


def _present(axis: Variable, numbers: np.ndarray) -> np.ndarray:
    """Which numbers (T,) are times, bool (T,)."""
    packing = packing_of(axis)
    present = packing.present(packing.as_stored(numbers))
    if numbers.dtype.kind == "f":
        return present & np.isfinite(numbers)
    if numbers.dtype.kind == "i":  # xarray's and numpy's NaT
        return present & (numbers != np.iinfo(numbers.dtype).min)
    return present


def _units(axis: Variable) -> tuple[str, float]:
    """The units as cftime reads them, and how many of these one unit is."""
    text = axis.text("units")
    match = SINCE.fullmatch(" ".join(text.lower().split()))
    unit = None
    if match is not None:
        unit = UNITS.get(match["unit"]) or UNITS.get(match["unit"].removesuffix("s"))
    if match is None or unit is None:
        raise InputError(
            f"{axis.where}: units {text!r}: expected '<unit> since <date>' such as 'days since "
            "2015-06-23' or 'seconds since 1970-01-01T00:00:00+02:00' (weeks to nanoseconds)"
        )
    date = f"{int(match['year']):04}-{int(match['month']):02}-{int(match['day']):02}"
    clock = ":".join(f"{int(match[part] or 0):02}" for part in ("hour", "minute", "second"))
    zone = "+00:00"
    if match["sign"]:
        zone = f"{match['sign']}{int(match['ahead']):02}:{int(match['minutes'] or 0):02}"
    name, count = unit
    return f"{name} since {date} {clock}{(match['part'] or '').rstrip('.')} {zone}", count
