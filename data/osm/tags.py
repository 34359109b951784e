"""OpenStreetMap tags -> what is drawn: the class, the width of a line, and the level.

Tags and their meaning: wiki.openstreetmap.org/wiki/Map_features. An object whose tags have no entry
is not drawn: a wrong label costs more than a missing one.
"""

import re
from typing import NamedTuple

from data.tiles.classes import INDEX, draw_rank


class Way(NamedTuple):
    """What a line is drawn as."""

    name: str
    width: float  # metres on the ground: carriageway, ballast bed, water surface
    lanes: int = 0  # that the width is for; 0: a ``lanes`` tag says nothing about the width


# Areas: (key, value) -> class. "*" stands for any other value except "no". None: certainly not
# drawn. Among several tags of one object the class that is drawn last wins, and in one drawing
# layer the later line of this table.
AREAS: dict[tuple[str, str], str | None] = {
    ("landuse", "education"): "built-up area",
    ("landuse", "religious"): "built-up area",
    ("landuse", "institutional"): "built-up area",
    ("landuse", "garages"): "built-up area",
    ("amenity", "school"): "built-up area",
    ("amenity", "college"): "built-up area",
    ("amenity", "university"): "built-up area",
    ("amenity", "hospital"): "built-up area",
    ("landuse", "residential"): "residential area",
    ("landuse", "commercial"): "commercial area",
    ("landuse", "retail"): "commercial area",
    ("landuse", "industrial"): "industrial area",
    ("landuse", "depot"): "industrial area",
    ("man_made", "works"): "industrial area",
    ("landuse", "farmyard"): "farmyard",
    ("tourism", "camp_site"): "campsite",
    ("tourism", "caravan_site"): "campsite",
    ("tourism", "theme_park"): "amusement park",
    ("leisure", "water_park"): "amusement park",
    ("landuse", "port"): "harbour",
    ("leisure", "marina"): "harbour",
    ("aeroway", "aerodrome"): "airport",
    ("aeroway", "heliport"): "airport",
    ("man_made", "wastewater_plant"): "wastewater plant",
    ("plant:source", "coal"): "power plant",
    ("plant:source", "gas"): "power plant",
    ("plant:source", "oil"): "power plant",
    ("plant:source", "nuclear"): "power plant",
    ("plant:source", "biomass"): "power plant",
    ("plant:source", "waste"): "power plant",
    ("leisure", "park"): "park",
    ("landuse", "village_green"): "park",
    ("landuse", "recreation_ground"): "park",
    ("leisure", "golf_course"): "golf course",
    ("landuse", "farmland"): "cropland",
    ("landuse", "farm"): "cropland",
    ("landuse", "allotments"): "allotments",
    ("landuse", "plant_nursery"): "plant nursery",
    ("landuse", "paddy"): "rice field",
    ("landuse", "meadow"): "grassland",
    ("landuse", "grass"): "grassland",
    ("natural", "grassland"): "grassland",
    ("natural", "scrub"): "shrubland",
    ("natural", "heath"): "shrubland",
    ("natural", "shrubbery"): "shrubland",
    ("landuse", "forest"): "forest",
    ("natural", "wood"): "forest",
    ("natural", "tree_group"): "forest",
    ("landuse", "orchard"): "orchard",
    ("landuse", "vineyard"): "vineyard",
    ("natural", "beach"): "sand",
    ("natural", "sand"): "sand",
    ("natural", "dune"): "sand",
    ("natural", "shoal"): "sand",
    ("natural", "mud"): "mudflat",
    ("natural", "shingle"): "gravel surface",
    ("natural", "bare_rock"): "bare rock",
    ("natural", "scree"): "bare rock",
    ("natural", "rock"): "bare rock",
    ("natural", "glacier"): "glacier",
    ("natural", "wetland"): "wetland",
    ("man_made", "spoil_heap"): "bare soil",
    ("landuse", "construction"): "construction site",
    ("building", "construction"): "construction site",
    ("landuse", "quarry"): "quarry",
    ("landuse", "landfill"): "landfill",
    ("landuse", "cemetery"): "cemetery",
    ("amenity", "grave_yard"): "cemetery",
    ("leisure", "stadium"): "stadium",
    ("leisure", "track"): "running track",
    ("leisure", "pitch"): "sports pitch",
    ("leisure", "playground"): "playground",
    ("power", "substation"): "power substation",
    ("natural", "water"): "water",
    ("landuse", "reservoir"): "water",
    ("landuse", "basin"): "water",
    ("landuse", "pond"): "water",
    ("waterway", "riverbank"): "water",
    ("waterway", "dock"): "water",
    ("amenity", "fountain"): "water",
    ("landuse", "aquaculture"): "fish ponds",
    ("landuse", "salt_pond"): "salt ponds",
    ("leisure", "swimming_pool"): "swimming pool",
    ("landuse", "railway"): "railway",
    ("amenity", "parking"): "parking lot",
    ("amenity", "parking_space"): "parking lot",
    ("amenity", "bus_station"): "paved surface",
    ("aeroway", "apron"): "paved surface",
    ("man_made", "quay"): "paved surface",
    ("railway", "platform"): "paved surface",
    ("public_transport", "platform"): "paved surface",
    ("highway", "platform"): "paved surface",
    ("area:highway", "*"): "road",
    ("area:highway", "footway"): "paved surface",
    ("area:highway", "pedestrian"): "paved surface",
    ("area:highway", "cycleway"): "paved surface",
    ("area:highway", "path"): "footpath",
    ("area:highway", "track"): "unpaved road",
    ("building", "*"): "building",
    ("aeroway", "terminal"): "building",
    ("aeroway", "hangar"): "building",
    ("building", "ruins"): None,
    ("building", "collapsed"): None,
    ("building", "demolished"): None,
    ("building", "destroyed"): None,
    ("building", "razed"): None,
    ("building", "proposed"): None,
    ("building", "greenhouse"): "greenhouse",
    ("landuse", "greenhouse_horticulture"): "greenhouse",
    ("plant:source", "solar"): "solar farm",
    ("generator:source", "solar"): "solar farm",
    ("man_made", "bridge"): "bridge",
    ("aeroway", "helipad"): "helipad",
    ("man_made", "storage_tank"): "storage tank",
    ("man_made", "silo"): "storage tank",
    ("man_made", "gasometer"): "storage tank",
    ("building", "storage_tank"): "storage tank",
    ("building", "silo"): "storage tank",
}

LANE = 3.25  # metres
MAX_WIDTH = 200.0  # metres; a wider line is a typing error or another unit
MIN_WIDTH = 0.3  # metres
WAYS = {
    ("highway", "motorway"): Way("road", 11, 2),
    ("highway", "trunk"): Way("road", 9, 2),
    ("highway", "primary"): Way("road", 8, 2),
    ("highway", "secondary"): Way("road", 7, 2),
    ("highway", "tertiary"): Way("road", 6.5, 2),
    ("highway", "unclassified"): Way("road", 5.5, 2),
    ("highway", "residential"): Way("road", 6, 2),
    ("highway", "road"): Way("road", 5.5, 2),
    ("highway", "motorway_link"): Way("road", 6, 1),
    ("highway", "trunk_link"): Way("road", 6, 1),
    ("highway", "primary_link"): Way("road", 5, 1),
    ("highway", "secondary_link"): Way("road", 5, 1),
    ("highway", "tertiary_link"): Way("road", 4.5, 1),
    ("highway", "living_street"): Way("road", 5),
    ("highway", "service"): Way("road", 4, 1),
    ("highway", "busway"): Way("road", 6.5, 2),
    ("highway", "raceway"): Way("road", 10),
    ("highway", "pedestrian"): Way("paved surface", 5),
    ("highway", "track"): Way("unpaved road", 3),
    ("highway", "cycleway"): Way("footpath", 2.5),
    ("highway", "footway"): Way("footpath", 2),
    ("highway", "bridleway"): Way("footpath", 2),
    ("highway", "steps"): Way("footpath", 2),
    ("highway", "path"): Way("footpath", 1.5),
    ("railway", "rail"): Way("railway", 4),
    ("railway", "light_rail"): Way("railway", 3.5),
    ("railway", "subway"): Way("railway", 3.5),
    ("railway", "tram"): Way("railway", 3),
    ("railway", "narrow_gauge"): Way("railway", 3),
    ("railway", "funicular"): Way("railway", 3),
    ("railway", "monorail"): Way("railway", 2),
    ("railway", "preserved"): Way("railway", 4),
    ("railway", "disused"): Way("railway", 4),
    ("waterway", "river"): Way("water", 12),
    ("waterway", "canal"): Way("water", 10),
    ("waterway", "tidal_channel"): Way("water", 4),
    ("waterway", "stream"): Way("water", 2),
    ("waterway", "ditch"): Way("water", 1.5),
    ("waterway", "drain"): Way("water", 1.5),
    ("waterway", "dam"): Way("dam", 6),
    ("aeroway", "runway"): Way("runway", 30),
    ("aeroway", "taxiway"): Way("paved surface", 15),
    ("man_made", "pier"): Way("pier", 3),
    ("man_made", "groyne"): Way("pier", 3),
    ("man_made", "breakwater"): Way("pier", 6),
    ("barrier", "hedge"): Way("hedge", 1.5),
    ("natural", "tree_row"): Way("tree row", 5),
}
# A polygon with a way's tag is that way's surface; of those for people on foot it is a square, not
# a path.
SURFACES = {"footway": "paved surface", "cycleway": "paved surface", "steps": "paved surface"}

_UNPAVED = (
    "unpaved",
    "gravel",
    "fine_gravel",
    "compacted",
    "pebblestone",
    "dirt",
    "earth",
    "ground",
    "sand",
    "mud",
    "grass",
    "rock",
)
_PAVED = (
    "paved",
    "asphalt",
    "chipseal",
    "concrete",
    "concrete:lanes",
    "concrete:plates",
    "paving_stones",
    "sett",
)

# (class, key, values) -> the class that a second tag makes of the first. The first line that fits
# is taken.
FINER: dict[tuple[str, str, tuple[str, ...]], str | None] = {
    ("road", "surface", _UNPAVED): "unpaved road",
    ("unpaved road", "surface", _PAVED): "road",
    ("paved surface", "surface", _UNPAVED): "gravel surface",
    ("parking lot", "parking", ("underground",)): None,
    ("parking lot", "parking", ("multi-storey", "rooftop")): "building",
    ("water", "intermittent", ("yes",)): None,
    ("water", "seasonal", ("yes",)): None,  # dry on most images
    ("water", "basin", ("infiltration", "detention")): None,
    ("forest", "leaf_type", ("needleleaved",)): "coniferous forest",
    ("forest", "leaf_cycle", ("deciduous",)): "deciduous forest",
    ("wetland", "wetland", ("tidalflat",)): "mudflat",
    ("wetland", "wetland", ("mangrove",)): "mangroves",
    ("cropland", "crop", ("maize", "corn")): "maize",
    ("cropland", "crop", ("potato", "potatoes")): "potatoes",
    ("cropland", "crop", ("rice",)): "rice field",
    ("industrial area", "industrial", ("port",)): "harbour",
    ("industrial area", "industrial", ("wastewater_plant",)): "wastewater plant",
    ("sports pitch", "sport", ("tennis",)): "tennis court",
    ("sports pitch", "sport", ("soccer",)): "football pitch",
    ("sports pitch", "sport", ("basketball",)): "basketball court",
    ("sports pitch", "sport", ("baseball", "softball")): "baseball field",
    ("running track", "sport", ("horse_racing", "motor", "karting", "bmx", "cycling")): None,
}
_AREA_ORDER = {pair: position for position, pair in enumerate(AREAS)}

HIDING = ("tunnel", "covered", "indoor")  # with any value but "no": not seen from above
GONE = (
    "proposed",
    "planned",
    "abandoned",
    "razed",
    "demolished",
    "removed",
    "dismantled",
    "destroyed",
)
LOCATIONS = ("underground", "underwater", "indoor")
NO = ("", "no", "false", "0")

# Every key that this module looks at.
KEYS = frozenset(
    {key for key, _ in (*AREAS, *WAYS)}
    | {key for _, key, _ in FINER}
    | {*HIDING, *GONE, "location", "layer", "bridge", "area", "width", "lanes"}
)

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
    return _drawn_last([_finer(name, tags) for name in names])


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


def _drawn_last(names: list[str | None]) -> int | None:
    """Index of the class that is drawn last; among equals the last of the list."""
    indices = [INDEX[name] for name in names if name]
    if not indices:
        return None
    return max(reversed(indices), key=draw_rank)
