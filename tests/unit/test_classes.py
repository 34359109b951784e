"""The class table and what falls on it."""

import numpy as np
import pytest

from data.classes import CODES, INDEX, NAMES, OSM_TAGS, class_table, map_codes, osm_class
from data.errors import InputError


def test_table_is_complete_and_within_a_byte():
    table = class_table()
    assert [row["index"] for row in table] == list(range(len(NAMES))) and len(table) < 255
    assert len({row["text"] for row in table}) == len(table)
    named = {name for legend in CODES.values() for name in legend.values()} | set(OSM_TAGS.values())
    assert named <= set(NAMES) and set(NAMES) <= named


def test_codes_map_and_unknown_codes_stay_unlabelled():
    codes = np.array([[1, 5, 12], [13, 0, 99]], np.uint8)
    expected = [[INDEX["building"], INDEX["water"], INDEX["ploughed land"]], [255, 255, 255]]
    assert map_codes(codes, "flair").tolist() == expected
    with pytest.raises(InputError, match="legend"):
        map_codes(codes, "corine")


@pytest.mark.parametrize("tags, name", [
    ({"building": "yes"}, "building"), ({"building": "greenhouse"}, "greenhouse"), ({"building": "no"}, None),
    ({"building": "house", "landuse": "residential"}, "building"), ({"landuse": "forest"}, "forest"),
    ({"highway": "primary", "landuse": "grass"}, "road"), ({"osm_id": 5}, None), ({"natural": None}, None),
])
def test_osm_tags(tags, name):
    assert osm_class(tags) == (None if name is None else INDEX[name])
