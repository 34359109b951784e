"""What the tags of an OpenStreetMap object say: the class, the width of a line, and the level.

The tables are in tag_tables.py.
"""

import re

from data.osm.tag_tables import AREAS, FINER, GONE, HIDING, LANE, LOCATIONS, NO, SURFACES, WAYS, Way
from data.tiles.classes import INDEX, draw_rank

MAX_WIDTH = 200.0  # metres; a wider line is a typing error or another unit
MIN_WIDTH = 0.3  # metres

_AREA_ORDER = {pair: position for position, pair in enumerate(AREAS)}
_LANES = re.compile(r"[1-9]|1[0-6]")
_LAYER = re.compile(r"-?[0-9]")
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(m|cm|ft|'|)")
_FEET_AND_INCHES = re.compile(r"([0-9]+)'([0-9]+)\"")
_FOOT = 0.3048  # metres
_INCH = 0.0254
_UNITS = {"": 1, "m": 1, "cm": 0.01, "ft": _FOOT, "'": _FOOT}


def area_class(tags: dict[str, str], *, closed_line: bool = False) -> int | None:
    """The class of an area.

    A tag of ``WAYS`` speaks of the area if no other does.

    Args:
        tags: of a polygon or a closed line.
        closed_line: the area is the one inside a closed line. A tag of ``WAYS`` then speaks of it
            only with area=yes: a hedge around a meadow is a hedge and a meadow, a roundabout is a
            road.

    Returns:
        The class index; None when nothing is drawn.
    """
    if is_hidden(tags):
        return None
    pairs = _meaningful(tags)
    known = []
    for key, value in pairs:
        if (key, value) in AREAS:
            known.append((key, value))
        elif (key, "*") in AREAS:
            known.append((key, "*"))
    known.sort(key=_AREA_ORDER.__getitem__)
    names = [AREAS[pair] for pair in known]
    if tags.get("area") == "yes" or not (names or closed_line):
        for key, value in sorted(pairs & WAYS.keys()):
            names.append(SURFACES.get(value, WAYS[key, value].name))
    return _drawn_last(names, tags)


def way_class(tags: dict[str, str]) -> tuple[int, float] | None:
    """The class index and the width in metres of what runs along a line; None for nothing."""
    if is_hidden(tags) or tags.get("area") == "yes":
        return None
    ways: dict[int, Way] = {}
    for pair in sorted(_meaningful(tags) & WAYS.keys()):
        name = _finer(WAYS[pair].name, tags)
        if name is not None:
            ways[INDEX[name]] = WAYS[pair]
    if not ways:
        return None
    index = max(ways, key=draw_rank)
    return index, way_width(ways[index], tags)


def way_width(way: Way, tags: dict[str, str]) -> float:
    """Width in metres: the ``width`` tag if it makes sense, else by ``lanes``, else the table's."""
    width = metres(tags.get("width", ""))
    if width is not None:
        return width
    if way.lanes and _LANES.fullmatch(tags.get("lanes", "")):
        return max(LANE, way.width + (int(tags["lanes"]) - way.lanes) * LANE)
    return way.width


def is_telling(tags: dict[str, str]) -> bool:
    """Whether any tag has an entry, if only to say that nothing is drawn."""
    for key, value in _meaningful(tags):
        if (key, value) in AREAS or (key, value) in WAYS or (key, "*") in AREAS:
            return True
    return False


def metres(text: str) -> float | None:
    """A length as OpenStreetMap writes it, in metres.

    Forms: "3.5", "3.5 m", "350 cm", "12 ft", 12'6".

    Returns:
        The length; None for any other text, and outside ``MIN_WIDTH`` to ``MAX_WIDTH``.
    """
    plain = _LENGTH.fullmatch(text)
    feet_and_inches = _FEET_AND_INCHES.fullmatch(text)
    if plain:
        number, unit = plain.groups()
        length = float(number) * _UNITS[unit]
    elif feet_and_inches:
        feet, inches = feet_and_inches.groups()
        length = float(feet) * _FOOT + int(inches) * _INCH
    else:
        return None
    if MIN_WIDTH <= length <= MAX_WIDTH:
        return length
    return None


def level(tags: dict[str, str]) -> int:
    """Which of two things of one drawing layer lies over the other, from -5 to 5.

    A bridge without the tag ``layer`` is on level 1.
    """
    if _LAYER.fullmatch(tags.get("layer", "")):
        return max(-5, min(5, int(tags["layer"])))
    return int(tags.get("bridge", "") not in NO)


def is_hidden(tags: dict[str, str]) -> bool:
    """Whether the object cannot be seen from above, or is not there (any more, or yet)."""
    is_below = any(tags.get(key, "") not in NO for key in HIDING)
    is_gone = any(tags.get(key) == "yes" for key in GONE)
    return is_below or is_gone or tags.get("location") in LOCATIONS


def _meaningful(tags: dict[str, str]) -> set[tuple[str, str]]:
    """The (key, value) pairs that do not say "no"."""
    return {(key, value) for key, value in tags.items() if value not in NO}


def _finer(name: str | None, tags: dict[str, str]) -> str | None:
    """The class that other tags make of a class; see ``FINER``."""
    for (coarse, key, values), fine in FINER.items():
        if name == coarse and tags.get(key) in values:
            return fine
    return name


def _drawn_last(names: list[str | None], tags: dict[str, str]) -> int | None:
    """Index of the class that is drawn last; among equals the last of the list."""
    indices = []
    for name in names:
        finer = _finer(name, tags)
        if finer is not None:
            indices.append(INDEX[finer])
    if not indices:
        return None
    return max(reversed(indices), key=draw_rank)
