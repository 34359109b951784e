"""A nested JSON object as a table: dotted place -> value."""

from collections.abc import Mapping
from typing import Any


def flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The values of an object by dotted place, such as ``skysense.schedule.steps``.

    Lists are values, and so are empty objects.

    Args:
        content: Parsed JSON.
        above: Put before each place, with a dot behind it.
    """
    table: dict[str, Any] = {}
    for name, value in content.items():
        place = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            table |= flat(value, f"{place}.")
        else:
            table[place] = value
    return table
