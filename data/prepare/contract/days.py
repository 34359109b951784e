"""The day of a time: that in UTC, for the archive has no other."""

from datetime import UTC, datetime


def utc_day(time: datetime) -> str:
    """The ISO day in UTC of a time. A time without a zone is in UTC.

    Raises:
        ValueError: it is the first or the last day of the calendar, and another one in UTC.
    """
    if time.tzinfo is None:
        return time.date().isoformat()
    try:
        return time.astimezone(UTC).date().isoformat()
    except OverflowError:
        raise ValueError(f"{time.isoformat()} is beyond the calendar in UTC") from None


def day_of_text(text: str) -> str:
    """The ISO day in UTC of a time such as 2020-05-01T08:30:00+12:00; other text as it is."""
    if text[10:11] not in ("T", " "):
        return text
    try:
        return utc_day(datetime.fromisoformat(text))
    except ValueError:
        return text
