"""Records of index and manifest: exact bytes, strict types, one line for what is wrong."""

import json

import pytest

from data.errors import InputError
from data.shards.records import (
    IndexEntry,
    IndexHead,
    MaskLayout,
    SeriesLayout,
    manifest_hash,
)

LINE = {
    "block": [0, 4096],
    "cells": 6,
    "dates": {"ms": ["2019-05-06"]},
    "key": "a",
    "lat": 50.5,
    "lon": 3,
    "members": {
        "meta": {"crc32c": 1, "name": "a.meta.json", "offset": 512, "size": 9},
        "ms": {
            "crc32c": 2,
            "dtype": "<u2",
            "frames": [[0, 7, 3]],
            "name": "a.ms.blosc",
            "offset": 1536,
            "shape": [10, 6, 6],
            "size": 7,
            "step": None,
        },
        "ms_valid": {
            "crc32c": 4,
            "dtype": "|b1",
            "name": "a.ms_valid.zst",
            "offset": 2560,
            "shape": [1, 6, 6],
            "size": 5,
        },
    },
    "modalities": ["ms"],
    "usable": {"ms": [0]},
}


def text(content):
    return json.dumps(content, separators=(",", ":")).encode()


def test_an_entry_is_read_and_written_without_a_change():
    entry = IndexEntry.parse(text(LINE), "here")
    assert json.loads(entry.line()) == LINE
    assert entry.line() == IndexEntry.parse(entry.line(), "here").line()
    assert entry.line().endswith(b"\n")


def test_stacks_say_how_they_are_laid_out():
    entry = IndexEntry.parse(text(LINE), "here")
    assert entry.masks("ms_valid") == MaskLayout(dtype="|b1", shape=(1, 6, 6))
    assert entry.series("ms") == SeriesLayout(
        dtype="<u2", shape=(10, 6, 6), step=None, frames=[(0, 7, 3)]
    )
    for wrong in ("meta", "ms_valid", "sar"):
        with pytest.raises(InputError, match=f"sample 'a' has no series '{wrong}'"):
            entry.series(wrong)
    with pytest.raises(InputError, match="sample 'a' has no masks 'ms'"):
        entry.masks("ms")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"keyy": "a"}, "here: keyy: Extra inputs are not permitted"),
        ({"cells": "6"}, "here: cells: Input should be a valid integer"),
        ({"block": [0]}, "here: block"),
        ({"members": {"meta": {"size": 1}}}, "here: members.meta"),
    ],
)
def test_other_names_and_types_are_refused_in_one_line(change, message):
    with pytest.raises(InputError) as caught:
        IndexEntry.parse(text({**LINE, **change}), "here")
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("build the shards again")
    assert "\n" not in str(caught.value)


def test_what_is_no_json_is_refused():
    with pytest.raises(InputError, match="^here: content: Invalid JSON"):
        IndexEntry.parse(b"{", "here")


def test_a_head_keeps_the_order_of_its_names():
    head = IndexHead(shard="shard-000000.tar", rows=[(0, 9, 1)])
    assert head.line() == b'{"shard":"shard-000000.tar","rows":[[0,9,1]]}\n'


def test_the_hash_leaves_itself_out():
    assert manifest_hash({"a": 1, "hash": "x"}) == manifest_hash({"hash": "y", "a": 1})
    assert manifest_hash({"a": 1}) != manifest_hash({"a": 2})
