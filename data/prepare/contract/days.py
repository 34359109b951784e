"""Days and times: those in UTC, for the archive has no others."""

import re
from datetime import UTC, datetime, time

COMPACT = re.compile(r"\d{8}(T\d{6}Z?)?")  # 20200501, as names of files have it


def in_utc(moment: datetime) -> datetime:
    """A time in UTC, without its zone. A time without a zone is in UTC.

    Raises:
        ValueError: it is the first or the last day of the calendar, and another one in UTC.
    """
    if moment.tzinfo is None:
        return moment
    try:
        return moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} is beyond the calendar in UTC") from None


def utc_day(moment: datetime) -> str:
    """The ISO day in UTC of a time; raises as ``in_utc``."""
    return in_utc(moment).date().isoformat()


def utc_text(text: str) -> str:
    """A time such as 2020-05-01T08:30:00+12:00 in UTC, without its zone; other text as it is."""
    moment = _parsed(text)
    if moment is None:
        return text
    return moment.isoformat()


def day_of_text(text: str) -> str:
    """The ISO day in UTC of a time such as 2020-05-01T08:30:00+12:00; other text as it is."""
    moment = _parsed(text)
    if moment is None:
        return text
    return moment.date().isoformat()


def time_of_text(text: str) -> datetime | None:
    """The time in UTC that a text says beside its day; None when it says the day alone.

    Midnight is how tables and catalogues write a day without a time.
    """
    moment = _parsed(text)
    if moment is None or moment.time() == time.min:
        return None
    return moment


def _parsed(text: str) -> datetime | None:
    """A time in UTC; None for a day, and for text that is no time."""
    if text[10:11] not in ("T", " ") and not COMPACT.fullmatch(text):
        return None
    try:
        return in_utc(datetime.fromisoformat(text))
    except ValueError:
        return None
