"""Every mistake of a manifest is named before the run begins, with file and line."""

import dataclasses
import json

import pytest

from data.errors import InputError
from data.prepare.manifest.read import read_manifest
from data.prepare.manifest.records import READERS
from tests.unit.manifests import IMAGE, LINE, rows_of, write_csv, write_lines, write_parquet


def refused(*files) -> list[str]:
    """The lines of the error."""
    with pytest.raises(InputError) as caught:
        read_manifest(*files)
    return str(caught.value).splitlines()


CUBE = {"reader": "zarr_cube", "path": "a.zarr", "modality": "sar", "bands": {"VV": "a", "VH": "b"}}
LABELS = {"reader": "geotiff_labels", "path": "a.tif", "legend": "flair"}
SHAPES = {"reader": "osm", "path": "a.gpkg"}
TILES = {"reader": "web_tiles", "paths": ["a-1-1-19.png"], "date": "2020-05-01"}


@pytest.mark.parametrize(
    "source, words",
    [
        ({**IMAGE, "modality": "hrr"}, "modality 'hrr': expected one of"),
        ({**IMAGE, "date": "2020-02-30"}, "date '2020-02-30': expected YYYY-MM-DD"),
        ({**IMAGE, "date_accuracy": "month"}, "date_accuracy 'month': expected one of"),
        ({**IMAGE, "bands": ["R", "G"]}, "lack ['B'] of hr"),
        ({**IMAGE, "bands": ["R", "G", "B", "R"]}, "name ['R'] of hr more than once"),
        ({**IMAGE, "units": "power"}, "units 'power' are of sar, found hr"),
        ({**IMAGE, "units": "dB"}, "units 'dB': expected one of"),
        ({**IMAGE, "offset": 4}, "offset 4.0 without a scale"),
        ({**IMAGE, "scale": 0}, "scale 0.0: expected a number above 0"),
        ({**IMAGE, "scale": 1, "offset": float("inf")}, "offset inf: expected a finite number"),
        ({**IMAGE, "mask": "m.tif"}, "mask and masked need each other"),
        ({**CUBE, "crs": "EPSG:99999999"}, "crs 'EPSG:99999999': expected a projected"),
        ({**CUBE, "crs": "here"}, "crs 'here': expected a projected"),
        ({**CUBE, "masked": [3]}, "mask and masked need each other"),
        ({**CUBE, "bands": {"VV": "a"}}, "lack ['VH'] of sar"),
        ({**LABELS, "legend": "corine"}, "legend 'corine': expected one of"),
        ({**LABELS, "legend": {"1": "vinyard"}}, "no class 'vinyard' (did you mean 'vineyard'?)"),
        ({**LABELS, "legend": {"1": 7}}, "no class 7"),
        ({**LABELS, "legend": {}}, "found an empty one"),
        ({**SHAPES, "tags": {"bulding": "yes"}}, "tag that names a class"),
        ({**SHAPES, "path": "a.osm.pbf", "layers": ["lines"]}, "has its own tags and no layers"),
        ({**TILES, "date": "yesterday"}, "date 'yesterday'"),
        ({**TILES, "paths": ["photo.png"]}, "ends in x-y-z.png"),
    ],
)
def test_a_value_that_can_never_work_is_found_before_any_file_is_opened(tmp_path, source, words):
    manifest = write_lines(
        tmp_path / "m.jsonl", [LINE | {"key": "b"}, LINE | {"sources": [source]}]
    )
    (line,) = refused(manifest)
    assert line.startswith(f"{manifest}:2: sources[0]: ") and words in line


def test_all_mistakes_of_a_line_stand_in_one_message(tmp_path):
    source = {
        **IMAGE,
        "modality": "optical",
        "date": "May",
        "scale": "x",
        "masked": [1],
        "path": 3,
        "colour": 1,
    }
    tile = {"key": "a b", "licence": 1, "centre": [9.0, 99.0], "cells": 8, "sources": [source, {}]}
    (line,) = refused(write_lines(tmp_path / "m.jsonl", [tile]))
    assert line.startswith(f"{tmp_path / 'm.jsonl'}:1: 11 mistakes: (1) ")
    for words in (
        "key: expected letters",
        "licence: expected text, found 1",
        "missing ['attribution']",
        "centre [9.0, 99.0]: expected degrees",
        "sources[0]: unknown key 'colour'",
        "sources[0]: path: expected text, found 3",
        "sources[0]: scale: expected a number, found 'x'",
        "sources[0]: modality 'optical': expected one of",
        "sources[0]: date 'May': expected YYYY-MM-DD",
        "sources[0]: mask and masked need each other",
        "sources[1]: reader None is unknown",
    ):
        assert line.count(words) == 1, words


def test_up_to_ten_wrong_lines_are_named_at_once(tmp_path):
    lines = [json.dumps(LINE | {"key": f"a{number}"}) for number in range(30)]
    for number in (3, 9):
        lines[number] = lines[number].replace('"hr"', '"hrr"')
    lines[5] = "{"
    lines[7] = lines[6]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines))
    named = refused(path)
    assert [line.split(": ")[0] for line in named] == [f"{path}:{n}" for n in (4, 6, 8, 10)]
    assert "not valid JSON" in named[1] and "key 'a6' stands on line 7 already" in named[2]
    path.write_text("\n".join(line.replace('"hr"', '"hrr"') for line in lines))
    named = refused(path)
    assert len(named) == 11 and named[10].startswith(f"{path}: expect more wrong lines")


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_the_rows_of_a_table_have_lines_of_their_own(tmp_path, write):
    rows = rows_of([LINE | {"sources": [IMAGE, IMAGE | {"date": "May"}, IMAGE | {"units": "K"}]}])
    path = write(tmp_path / f"m.{write.__name__.removeprefix('write_')}", rows)
    header = 1 if write is write_csv else 0
    first, second = refused(path)
    assert first == f"{path}:{header + 2}: date 'May': expected YYYY-MM-DD"
    assert second.startswith(f"{path}:{header + 3}: units 'K': expected one of")


def test_every_reader_looks_at_its_keys():
    for reader in READERS.values():
        assert callable(reader.check_keys) and dataclasses.is_dataclass(reader)
