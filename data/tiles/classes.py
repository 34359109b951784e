"""The class table of dense labels, and which classes the codes of each source mean.

Names become text prompts for the image-text alignment loss (supplement, eq. 7), so classes are
things a satellite image shows. A code or tag without an entry stays unlabelled (255): a wrong label
costs more than a missing one.
"""

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
    "unpaved road": "a satellite image of an unpaved road",
    "footpath": "a satellite image of a footpath",
    "runway": "a satellite image of a runway",
    "helipad": "a satellite image of a helipad",
    "bridge": "a satellite image of a bridge",
    "pier": "a satellite image of a pier or breakwater",
    "dam": "a satellite image of a dam",
    "storage tank": "a satellite image of storage tanks",
    "wastewater plant": "a satellite image of a wastewater treatment plant",
    "power plant": "a satellite image of a power plant",
    "power substation": "a satellite image of an electrical substation",
    "golf course": "a satellite image of a golf course",
    "playground": "a satellite image of a playground",
    "stadium": "a satellite image of a stadium",
    "running track": "a satellite image of a running track",
    "tennis court": "a satellite image of a tennis court",
    "football pitch": "a satellite image of a football pitch",
    "basketball court": "a satellite image of a basketball court",
    "baseball field": "a satellite image of a baseball field",
    "campsite": "a satellite image of a campsite",
    "amusement park": "a satellite image of an amusement park",
    "farmyard": "a satellite image of a farmyard",
    "allotments": "a satellite image of allotment gardens",
    "plant nursery": "a satellite image of a plant nursery",
    "rice field": "a satellite image of a rice field",
    "fish ponds": "a satellite image of fish ponds",
    "salt ponds": "a satellite image of salt ponds",
    "mudflat": "a satellite image of a tidal mudflat",
    "mangroves": "a satellite image of mangroves",
    "hedge": "a satellite image of a hedge",
    "tree row": "a satellite image of a row of trees",
}
NAMES = tuple(_PROMPTS)
INDEX = {name: index for index, name in enumerate(NAMES)}

# FLAIR #1 pixel codes; 13 and above mean "other"
FLAIR = {
    1: "building",
    2: "gravel surface",
    3: "paved surface",
    4: "bare soil",
    5: "water",
    6: "coniferous forest",
    7: "deciduous forest",
    8: "shrubland",
    9: "vineyard",
    10: "herbaceous cover",
    11: "cropland",
    12: "ploughed land",
}

# WorldCereal land-cover codes (LC) and crop types (CT). 99 means "no cropland", which names nothing
# that an image shows.
WORLDCEREAL_LC = {
    10: "cropland",
    11: "cropland",
    12: "orchard",
    13: "grassland",
    20: "herbaceous cover",
    30: "shrubland",
    40: "deciduous forest",
    41: "forest",
    42: "forest",
    50: "bare soil",
    60: "built-up area",
    70: "water",
    80: "glacier",
}
WORLDCEREAL_CT = {1200: "maize", 5100: "potatoes"}

CODES = {"flair": FLAIR, "worldcereal_lc": WORLDCEREAL_LC, "worldcereal_ct": WORLDCEREAL_CT}

# Drawing order of labels that come as shapes. Classes not named here are land cover.
LAYERS = {
    "settlement areas": (
        "built-up area",
        "residential area",
        "industrial area",
        "commercial area",
        "airport",
        "harbour",
        "power plant",
        "wastewater plant",
        "amusement park",
        "campsite",
        "farmyard",
    ),
    "land cover": (),
    "water": ("water", "swimming pool", "fish ponds", "salt ponds"),
    "ways": (
        "road",
        "railway",
        "parking lot",
        "paved surface",
        "unpaved road",
        "footpath",
        "runway",
    ),
    "what stands on them": (
        "building",
        "greenhouse",
        "solar farm",
        "bridge",
        "pier",
        "dam",
        "storage tank",
        "helipad",
    ),
}
_LAND_COVER = list(LAYERS).index("land cover")
_RANK: dict[str, int] = {}
for _rank, _names in enumerate(LAYERS.values()):
    _RANK.update(dict.fromkeys(_names, _rank))


def class_table() -> list[dict]:
    """The table as plain data: one ``{"index", "name", "text"}`` a class, in index order."""
    table = []
    for index, (name, prompt) in enumerate(_PROMPTS.items()):
        table.append({"index": index, "name": name, "text": prompt})
    return table


def draw_rank(index: int) -> int:
    """Position of a class in LAYERS: a class of a larger rank is drawn over the others."""
    return _RANK.get(NAMES[index], _LAND_COVER)
