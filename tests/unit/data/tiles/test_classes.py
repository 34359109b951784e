"""The class table and what falls on it."""

import numpy as np

from data.osm.class_page import page
from data.osm.tag_tables import AREAS, FINER, SURFACES, WAYS
from data.prepare.readers.raster_labels import code_table, map_codes
from data.tiles.classes import CODES, INDEX, LAYERS, NAMES, class_table, draw_rank
from tests.commands import skysense
from tests.paths import ROOT


def test_table_is_complete_and_within_a_byte():
    table = class_table()
    assert [row["index"] for row in table] == list(range(len(NAMES))) and len(table) < 255
    assert len({row["text"] for row in table}) == len(table)
    named = {
        name
        for legend in (*CODES.values(), AREAS, FINER, SURFACES)
        for name in legend.values()
        if name
    }
    named |= {way.name for way in WAYS.values()}
    assert named <= set(NAMES) and set(NAMES) <= named


def test_classes_are_only_ever_appended():
    """Archives and shards hold indices: these may never move."""
    assert [
        INDEX[name] for name in ("building", "road", "solar farm", "cropland", "water", "potatoes")
    ] == [0, 1, 15, 19, 36, 38]


def test_layers_name_classes_once_and_put_what_stands_on_top():
    named = [name for names in LAYERS.values() for name in names]
    assert len(set(named)) == len(named) and set(named) <= set(NAMES)
    ranks = [
        draw_rank(INDEX[name])
        for name in ("residential area", "forest", "water", "road", "building")
    ]
    assert ranks == [0, 1, 2, 3, 4]


def test_codes_map_and_unknown_codes_stay_unlabelled():
    codes = np.array([[1, 5, 12], [13, 0, 99]], np.uint8)
    expected = [[INDEX["building"], INDEX["water"], INDEX["ploughed land"]], [255, 255, 255]]
    assert map_codes(codes, code_table("flair")).tolist() == expected


def test_the_page_is_what_the_code_says():
    assert (ROOT / "docs/classes.md").read_text() == page(), (
        "run skysense classes --out docs/classes.md"
    )
    printed = skysense("classes")
    assert (printed.stdout, printed.returncode) == (page(), 0)
    rows = [line.split(" | ") for line in page().splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows if row[0][2:].isdigit()] == list(NAMES)
