"""Time axes of NetCDF and zarr, as the CF conventions write them."""

from collections.abc import Mapping
from datetime import datetime

import cftime
import numpy as np

from data.errors import InputError
from data.prepare.contract.files import File, reading

# Calendars of real days. The others (noleap, 360_day, ...) count the days of a climate model.
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


def cf_times(path: File, name: str, axis: np.ndarray, attributes: Mapping) -> list[datetime]:
    """The times of an axis, in its order.

    Args:
        path: the file, for errors.
        name: the name of the axis, for errors.
        axis: (T,) numbers.
        attributes: those of the axis: "units" says '<unit> since <date>', "calendar" may say in
            which calendar.

    Returns:
        The time of each frame, without a time zone.

    Raises:
        InputError: other units, the calendar of a model, or numbers that are no times.
    """
    units = text_of(attributes.get("units", "")).strip()
    calendar = text_of(attributes.get("calendar", ""))
    if " since " not in units or calendar not in ("", *CALENDARS):
        raise InputError(
            f"{path}: {name}: expected units like 'days since 2015-06-23' in the standard "
            f"calendar, found {units!r}, calendar {calendar!r}"
        )
    with reading(path, f"times in {units!r}"):
        numbers = np.atleast_1d(axis)
        if numbers.ndim != 1:
            raise ValueError(f"a time axis has one dimension, found {numbers.ndim}")
        if not np.isfinite(numbers).all():
            raise ValueError("a time axis must be finite")
        if units.startswith("nanosecond"):  # xarray writes these, cftime knows microseconds
            numbers = numbers / 1000
            units = "microseconds since " + units.partition(" since ")[2]
        times = cftime.num2date(
            numbers, units, calendar or "standard", only_use_cftime_datetimes=True
        )
        return [datetime.fromisoformat(time.isoformat()) for time in times]


def iso_days(times: list[datetime]) -> list[str]:
    """The ISO day of each time."""
    return [time.date().isoformat() for time in times]


def text_of(attribute: object) -> str:
    """An attribute as text; HDF5 may hold it as bytes."""
    if isinstance(attribute, bytes):
        return attribute.decode("utf-8", "replace")
    return str(attribute)
