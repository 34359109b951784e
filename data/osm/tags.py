"""OpenStreetMap tags -> what is drawn: the class, along a line or over an area, how wide, and on
which level.

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
    lanes: int = 0  # that this width is meant for; 0: a ``lanes`` tag says nothing about it


# Areas: (key, value) -> class. "*": any other value except "no". None: certainly not drawn. Among
# several tags of one object the class that is drawn last wins, and in one drawing layer the later
# line of this table.
AREAS = {
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

# (class, key, values) -> the class that the second tag makes of the first; the first that fits
# holds
FINER = {
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
_PLACE = {pair: place for place, pair in enumerate(AREAS)}

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

# Every key that this module looks at
KEYS = frozenset(
    {key for key, _ in (*AREAS, *WAYS)}
    | {key for _, key, _ in FINER}
    | set(HIDING)
    | set(GONE)
    | {"location", "layer", "bridge", "area", "width", "lanes"}
)


def area_class(tags: dict[str, str], closed_line: bool = False) -> int | None:
    """Class index of what a polygon's tags say its area is, or None.

    A tag of WAYS speaks of the area if no other does. ``closed_line``: the area inside a closed
    line, of which it speaks only with area=yes: a hedge around a meadow is a hedge and a meadow, a
    roundabout is a road."""
    if hidden(tags):
        return None
    pairs = _meaningful(tags)
    known = {pair if pair in AREAS else (pair[0], "*") for pair in pairs} & AREAS.keys()
    names = [AREAS[pair] for pair in sorted(known, key=_PLACE.get)]
    if tags.get("area") == "yes" or not (names or closed_line):
        names += [
            SURFACES.get(value, WAYS[key, value].name) for key, value in sorted(pairs & WAYS.keys())
        ]
    return _drawn([_finer(name, tags) for name in names])


def way_class(tags: dict[str, str]) -> tuple[int, float] | None:
    """(class index, width in metres) of what a line's tags say runs along it, or None."""
    if hidden(tags) or tags.get("area") == "yes":
        return None
    ways = [WAYS[pair] for pair in sorted(_meaningful(tags) & WAYS.keys())]
    found = {_drawn([_finer(way.name, tags)]): way for way in ways}
    found.pop(None, None)
    if not found:
        return None
    index = max(found, key=draw_rank)
    return index, way_width(found[index], tags)


def way_width(way: Way, tags: dict[str, str]) -> float:
    """Width in metres: the ``width`` tag if it makes sense, else by ``lanes``, else the table's."""
    told = metres(tags.get("width", ""))
    if told is not None:
        return told
    if way.lanes and re.fullmatch(r"[1-9]|1[0-6]", tags.get("lanes", "")):
        return max(LANE, way.width + (int(tags["lanes"]) - way.lanes) * LANE)
    return way.width


def telling(tags: dict[str, str]) -> bool:
    """Whether any tag has an entry, if only to say that nothing is drawn."""
    pairs = _meaningful(tags)
    return any(pair in AREAS or pair in WAYS or (pair[0], "*") in AREAS for pair in pairs)


MAX_WIDTH = 200.0  # metres; a wider line is a typing error or another unit
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(m|cm|ft|'|)")
_FEET_AND_INCHES = re.compile(r"([0-9]+)(')([0-9]+)\"")
_UNITS = {"": 1, "m": 1, "cm": 0.01, "ft": 0.3048, "'": 0.3048}


def metres(text: str) -> float | None:
    """A length as OpenStreetMap writes it ("3.5", "3.5 m", "350 cm", "12 ft", 12'6\") in metres;
    None for anything else, and outside 0.3 .. 200 m."""
    match = _LENGTH.fullmatch(text) or _FEET_AND_INCHES.fullmatch(text)
    if not match:
        return None
    number, unit, *inches = match.groups()
    length = float(number) * _UNITS[unit] + (int(inches[0]) * 0.0254 if inches else 0)
    return length if 0.3 <= length <= MAX_WIDTH else None


def level(tags: dict[str, str]) -> int:
    """-5 .. 5: which of two things of one drawing layer lies over the other; a bridge without ``layer`` is on 1."""
    if re.fullmatch(r"-?[0-9]", tags.get("layer", "")):
        return max(-5, min(5, int(tags["layer"])))
    return int(tags.get("bridge", "") not in NO)


def hidden(tags: dict[str, str]) -> bool:
    """Whether the object cannot be seen from above, or is not there (any more, or yet)."""
    return (
        any(tags.get(key, "") not in NO for key in HIDING)
        or tags.get("location") in LOCATIONS
        or any(tags.get(key) == "yes" for key in GONE)
    )


def _meaningful(tags: dict[str, str]) -> set[tuple[str, str]]:
    return {(key, value) for key, value in tags.items() if value not in NO}


def _finer(name: str | None, tags: dict[str, str]) -> str | None:
    for (coarse, key, values), fine in FINER.items():
        if name == coarse and tags.get(key) in values:
            return fine
    return name


def _drawn(names: list[str | None]) -> int | None:
    """Index of the class drawn last; among equals the last of the list. None when there is none to
    draw."""
    indices = [INDEX[name] for name in names if name]
    return max(reversed(indices), key=draw_rank) if indices else None
