"""What tags say: classes, widths, what cannot be seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.osm.tag_tables import AREAS, WAYS, Way
from data.osm.tags import area_class, level, metres, way_class, way_width
from data.tiles.classes import INDEX, NAMES


@pytest.mark.parametrize(
    "tags, name",
    [
        ({"building": "yes"}, "building"),
        ({"building": "greenhouse"}, "greenhouse"),
        ({"building": "no"}, None),
        ({"building": "house", "landuse": "residential"}, "building"),
        ({"landuse": "forest"}, "forest"),
        ({"building": "ruins"}, None),
        ({"building": "yes", "demolished": "yes"}, None),
        ({"building": "yes", "location": "underground"}, None),
        ({"demolished:building": "yes"}, None),
        ({"highway": "primary", "area": "yes", "landuse": "grass"}, "road"),
        ({"highway": "primary"}, "road"),
        ({"highway": "pedestrian"}, "paved surface"),
        ({"highway": "footway", "area": "yes"}, "paved surface"),
        ({"barrier": "hedge", "landuse": "meadow"}, "grassland"),
        ({"barrier": "hedge", "area": "yes"}, "hedge"),
        ({"leisure": "pitch", "sport": "tennis"}, "tennis court"),
        ({"sport": "tennis"}, None),
        ({"landuse": "farmland", "crop": "rice"}, "rice field"),
        ({"landuse": "farmland", "crop": "x;y"}, "cropland"),
        (
            {"natural": "wood", "leaf_type": "needleleaved", "leaf_cycle": "deciduous"},
            "coniferous forest",
        ),
        ({"natural": "water", "intermittent": "yes"}, None),
        ({"natural": "wetland", "wetland": "mangrove"}, "mangroves"),
        ({"amenity": "parking", "parking": "underground"}, None),
        ({"amenity": "parking"}, "parking lot"),
        ({"power": "plant", "plant:source": "solar"}, "solar farm"),
        ({"power": "plant"}, None),
        ({"area:highway": "residential"}, "road"),
        ({"area:highway": "footway"}, "paved surface"),
        ({"osm_id": "5"}, None),
        ({}, None),
    ],
)
def test_areas(tags, name):
    assert area_class(tags) == (None if name is None else INDEX[name])


@pytest.mark.parametrize(
    "tags, way",
    [
        ({"highway": "residential"}, ("road", 6)),
        ({"highway": "motorway", "lanes": "3"}, ("road", 14.25)),
        ({"highway": "primary", "lanes": "1"}, ("road", 4.75)),
        ({"highway": "service", "lanes": "x"}, ("road", 4)),
        ({"highway": "primary", "lanes": "4", "width": "9.5 m"}, ("road", 9.5)),
        ({"highway": "footway", "lanes": "4"}, ("footpath", 2)),
        ({"highway": "residential", "width": "wide"}, ("road", 6)),
        ({"highway": "unclassified", "surface": "dirt"}, ("unpaved road", 5.5)),
        ({"highway": "track", "surface": "asphalt"}, ("road", 3)),
        ({"highway": "track"}, ("unpaved road", 3)),
        ({"highway": "proposed"}, None),
        ({"highway": "construction"}, None),
        ({"highway": "bus_stop"}, None),
        ({"railway": "rail"}, ("railway", 4)),
        ({"railway": "abandoned"}, None),
        ({"railway": "subway", "tunnel": "yes"}, None),
        ({"waterway": "river", "width": "45"}, ("water", 45)),
        ({"waterway": "stream", "intermittent": "yes"}, None),
        ({"waterway": "ditch", "tunnel": "culvert"}, None),
        ({"waterway": "ditch", "tunnel": "no"}, ("water", 1.5)),
        ({"highway": "service", "area": "yes"}, None),
        ({"building": "yes"}, None),
        ({"landuse": "grass"}, None),
        ({"aeroway": "runway"}, ("runway", 30)),
        ({"natural": "tree_row"}, ("tree row", 5)),
    ],
)
def test_lines(tags, way):
    assert way_class(tags) == (None if way is None else (INDEX[way[0]], way[1]))


def test_a_closed_line_is_what_its_tags_say():
    hedge = {"barrier": "hedge", "landuse": "meadow"}
    assert (
        area_class(hedge, closed_line=True) == INDEX["grassland"]
        and way_class(hedge)[0] == INDEX["hedge"]
    )
    roundabout = {"highway": "primary"}
    assert (
        area_class(roundabout, closed_line=True) is None
        and way_class(roundabout)[0] == INDEX["road"]
    )
    square = {"highway": "pedestrian", "area": "yes"}
    assert (
        area_class(square, closed_line=True) == INDEX["paved surface"] and way_class(square) is None
    )


@pytest.mark.parametrize(
    "text, length",
    [
        ("3", 3),
        ("3.5", 3.5),
        ("3.5 m", 3.5),
        ("3.5m", 3.5),
        ("350 cm", 3.5),
        ("10 ft", 3.048),
        ("10'", 3.048),
        ("12'6\"", 3.81),
        ("", None),
        ("narrow", None),
        ("3,5", None),
        ("3;4", None),
        ("3-4", None),
        ("-3", None),
        ("0", None),
        ("0.2", None),
        ("1 km", None),
        ("200", 200),
        ("201", None),
        ("\u0661", None),  # a digit of another script
        ("nan", None),
        ("1e2", None),
    ],
)
def test_lengths(text, length):
    assert metres(text) == (None if length is None else pytest.approx(length))


@given(st.text())
def test_no_width_or_lanes_ever_break_a_line(text):
    for way in (Way("road", 8, 2), Way("footpath", 2)):
        width = way_width(way, {"width": text, "lanes": text})
        assert 0.3 <= width <= 200


def test_levels():
    assert [
        level(tags)
        for tags in (
            {},
            {"bridge": "yes"},
            {"bridge": "no"},
            {"layer": "-2"},
            {"layer": "9"},
            {"layer": "1;2"},
            {"layer": "-1", "bridge": "yes"},
        )
    ] == [0, 1, 0, -2, 5, 0, -1]


PAIRS = sorted({*AREAS, *WAYS})


@given(st.lists(st.sampled_from(PAIRS), max_size=4, unique_by=lambda pair: pair[0]), st.randoms())
def test_the_order_of_tags_plays_no_part(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert area_class(dict(pairs)) == area_class(dict(shuffled))
    assert way_class(dict(pairs)) == way_class(dict(shuffled))


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8)))
def test_unknown_tags_draw_nothing(tags):
    tags = {f"x{key}": value for key, value in tags.items()}
    assert area_class(tags) is None and way_class(tags) is None


def test_every_width_is_that_of_something_on_the_ground():
    assert all(1 <= way.width <= 45 and way.name in NAMES for way in WAYS.values())
