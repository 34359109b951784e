"""Columns of vector files as tags."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.osm.vector_files import parse_tags, tag_text
from tests.unit.maps import (
    hstore,
)


def test_tag_columns():
    tags = {"a": 'say "x" \\ y', "b=>c": "1, 2", "d": ""}
    assert parse_tags(hstore(tags)) == tags == parse_tags(json.dumps(tags))
    assert parse_tags('"lanes"=>"2", "x"=>NULL') == {"lanes": "2", "x": ""}
    assert parse_tags('{"lanes": 2, "x": null, "bridge": true}') == {"lanes": "2", "bridge": "yes"}
    assert [tag_text(value) for value in (4.0, 3.5, 7, True, np.float64(2), "x")] == [
        "4",
        "3.5",
        "7",
        "yes",
        "2",
        "x",
    ]


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_hstore_comes_back(tags):
    assert parse_tags(hstore(tags)) == tags
