"""The class table of dense labels, and how each source's codes and tags fall on it.

Names become text prompts for the image-text alignment loss (supplement, eq. 7), so classes are things a satellite image
shows. A code or tag without an entry stays unlabelled (255): a wrong label costs more than a missing one.
"""

import numpy as np

from data.errors import InputError
from data.tile import UNLABELLED

_PROMPTS = {  # name -> text prompt; the position is the class index, so only append
    "building": "a satellite image of buildings",
    "road": "a satellite image of a road",
    "railway": "a satellite image of a railway",
    "paved surface": "a satellite image of a paved surface",
    "gravel surface": "a satellite image of an unpaved gravel surface",
    "built-up area": "a satellite image of a built-up area",
    "residential area": "a satellite image of a residential area",
    "industrial area": "a satellite image of an industrial area",
    "commercial area": "a satellite image of a commercial area",
    "parking lot": "a satellite image of a parking lot",
    "airport": "a satellite image of an airport",
    "harbour": "a satellite image of a harbour",
    "construction site": "a satellite image of a construction site",
    "quarry": "a satellite image of a quarry",
    "landfill": "a satellite image of a landfill",
    "solar farm": "a satellite image of a solar farm",
    "park": "a satellite image of an urban park",
    "sports pitch": "a satellite image of a sports pitch",
    "cemetery": "a satellite image of a cemetery",
    "cropland": "a satellite image of cropland",
    "ploughed land": "a satellite image of freshly ploughed land",
    "maize": "a satellite image of a maize field",
    "orchard": "a satellite image of an orchard",
    "vineyard": "a satellite image of a vineyard",
    "greenhouse": "a satellite image of greenhouses",
    "grassland": "a satellite image of grassland",
    "herbaceous cover": "a satellite image of herbaceous vegetation",
    "shrubland": "a satellite image of shrubs and brushwood",
    "forest": "a satellite image of a forest",
    "deciduous forest": "a satellite image of deciduous trees",
    "coniferous forest": "a satellite image of coniferous trees",
    "bare soil": "a satellite image of bare soil",
    "sand": "a satellite image of sand or a beach",
    "bare rock": "a satellite image of bare rock",
    "glacier": "a satellite image of snow and ice",
    "wetland": "a satellite image of a wetland",
    "water": "a satellite image of water",
    "swimming pool": "a satellite image of a swimming pool",
    "potatoes": "a satellite image of a potato field",
}
NAMES = tuple(_PROMPTS)
INDEX = {name: index for index, name in enumerate(NAMES)}

# FLAIR #1 pixel codes; 13 and above are "other"
FLAIR = {1: "building", 2: "gravel surface", 3: "paved surface", 4: "bare soil", 5: "water", 6: "coniferous forest",
         7: "deciduous forest", 8: "shrubland", 9: "vineyard", 10: "herbaceous cover", 11: "cropland",
         12: "ploughed land"}

# WorldCereal land-cover codes (LC) and crop types (CT); 99 is "no cropland", which names nothing one can see
WORLDCEREAL_LC = {10: "cropland", 11: "cropland", 12: "orchard", 13: "grassland", 20: "herbaceous cover",
                  30: "shrubland", 40: "deciduous forest", 41: "forest", 42: "forest", 50: "bare soil",
                  60: "built-up area", 70: "water", 80: "glacier"}
WORLDCEREAL_CT = {1200: "maize", 5100: "potatoes"}

CODES = {"flair": FLAIR, "worldcereal_lc": WORLDCEREAL_LC, "worldcereal_ct": WORLDCEREAL_CT}

# OpenStreetMap: (key, value) -> class; "*" is any other value except "no"
OSM_TAGS = {
    ("building", "*"): "building", ("building", "greenhouse"): "greenhouse",
    ("highway", "*"): "road", ("railway", "*"): "railway", ("area:highway", "*"): "road",
    ("amenity", "parking"): "parking lot", ("aeroway", "aerodrome"): "airport", ("aeroway", "runway"): "paved surface",
    ("landuse", "residential"): "residential area", ("landuse", "industrial"): "industrial area",
    ("landuse", "commercial"): "commercial area", ("landuse", "retail"): "commercial area",
    ("landuse", "construction"): "construction site", ("landuse", "quarry"): "quarry",
    ("landuse", "landfill"): "landfill", ("landuse", "cemetery"): "cemetery", ("landuse", "port"): "harbour",
    ("landuse", "farmland"): "cropland", ("landuse", "orchard"): "orchard", ("landuse", "vineyard"): "vineyard",
    ("landuse", "greenhouse_horticulture"): "greenhouse", ("landuse", "forest"): "forest",
    ("landuse", "meadow"): "grassland", ("landuse", "grass"): "grassland", ("landuse", "reservoir"): "water",
    ("landuse", "basin"): "water", ("landuse", "railway"): "railway",
    ("leisure", "park"): "park", ("leisure", "pitch"): "sports pitch", ("leisure", "swimming_pool"): "swimming pool",
    ("leisure", "marina"): "harbour", ("natural", "wood"): "forest", ("natural", "grassland"): "grassland",
    ("natural", "scrub"): "shrubland", ("natural", "heath"): "shrubland", ("natural", "beach"): "sand",
    ("natural", "sand"): "sand", ("natural", "bare_rock"): "bare rock", ("natural", "scree"): "bare rock",
    ("natural", "glacier"): "glacier", ("natural", "wetland"): "wetland", ("natural", "water"): "water",
    ("waterway", "*"): "water", ("power", "plant"): "solar farm", ("generator:source", "solar"): "solar farm",
}


def class_table() -> list[dict]:
    """The table as plain data: one {"index", "name", "text"} a class, in index order."""
    return [{"index": index, "name": name, "text": _PROMPTS[name]} for name, index in INDEX.items()]


def map_codes(codes: np.ndarray, legend: str) -> np.ndarray:
    """Codes of a source (H, W) -> class indices uint8 (H, W), 255 where the legend has no entry.

    Raises InputError for an unknown legend name."""
    if legend not in CODES:
        raise InputError(f"label legend {legend!r}: expected one of {sorted(CODES)}")
    classes = np.full(codes.shape, UNLABELLED, np.uint8)
    for code, name in CODES[legend].items():
        classes[codes == code] = INDEX[name]
    return classes


def osm_class(tags: dict) -> int | None:
    """Class index of an OpenStreetMap object, or None. An exact value wins over "*"; among several keys the class that
    is drawn last wins: a building in a residential area is a building."""
    names = [OSM_TAGS.get((key, value)) or OSM_TAGS.get((key, "*"))
             for key, value in tags.items() if value not in (None, "no")]
    found = [INDEX[name] for name in names if name]
    return max(found, key=draw_rank) if found else None


def draw_rank(index: int) -> int:
    """Drawing order of a class: settlement areas, land cover, water, ways, what stands on them."""
    return _RANK.get(NAMES[index], 1)


_LAYERS = {  # land use and land cover not named here is layer 1
    0: ("built-up area", "residential area", "industrial area", "commercial area", "airport", "harbour"),
    2: ("water", "swimming pool"),
    3: ("road", "railway", "parking lot", "paved surface"),
    4: ("building", "greenhouse", "solar farm"),
}
_RANK = {name: rank for rank, names in _LAYERS.items() for name in names}
