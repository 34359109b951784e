"""What makes two entries of manifests the same tile."""

import json
from dataclasses import replace

import pytest

from data.prepare.fingerprint import fingerprint
from data.prepare.manifest.expand import expanded
from data.prepare.manifest.read import read_manifest
from tests.paths import ROOT
from tests.unit.data.prepare.test_command import IMAGE, LINE, source, write_image

SAMPLES = ROOT / "data/samples/manifest.jsonl"
PLACED = {**LINE, "centre": [9.1, 48.7], "cells": 4}


def only_entry(folder, *lines, name="manifest.jsonl"):
    """The only entry of a manifest of some lines."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(map(json.dumps, lines)))
    [entry] = expanded(read_manifest(folder / name), folder / name).entries
    return entry


@pytest.mark.parametrize(
    "line",
    [
        {**LINE, "sources": [dict(reversed(IMAGE.items()))]},
        source(date_accuracy="day"),
        source(path=".//a.tif"),
    ],
    ids=["order of keys", "a default", "path"],
)
def test_other_words_for_the_same_are_the_same(tmp_path, line):
    assert fingerprint(only_entry(tmp_path, line)) == fingerprint(only_entry(tmp_path, LINE))


def test_lines_tables_and_folders_are_the_same(tmp_path, monkeypatch):
    line = fingerprint(only_entry(tmp_path, LINE))
    table = tmp_path / "manifest.csv"
    table.write_text(
        "key,licence,attribution,reader,path,modality,bands,date\n"
        "a,CC0-1.0,nobody,geotiff_image,a.tif,hr,R;G;B,2020-05-01\n"
    )
    assert fingerprint(read_manifest(table)[0]) == line
    write_image(tmp_path / "a.tif")
    rule = {**LINE, "reader": "folder", "key": "{name}", "sources": [{**IMAGE, "path": "*.tif"}]}
    entry = only_entry(tmp_path, rule)
    assert entry.whole and fingerprint(entry) == line
    assert fingerprint(only_entry(tmp_path / "else", LINE)) == line
    monkeypatch.chdir(tmp_path)
    assert fingerprint(read_manifest("manifest.csv")[0]) == line


@pytest.mark.parametrize(
    "line",
    [
        {**LINE, "key": "b"},
        {**LINE, "licence": "CC-BY-4.0"},
        {**LINE, "attribution": "somebody"},
        {**LINE, "split": "test"},
        PLACED,
        {**PLACED, "cells": 5},
        {**PLACED, "centre": [9.1, 48.8]},
        {**LINE, "footprint": {"bounds": [0, 0, 100, 100], "crs": "EPSG:32632"}},
        {**LINE, "footprint": {"bounds": [0, 0, 100, 100], "crs": "EPSG:32633"}},
        source(path="b/a.tif"),
        source(path="https://example.org/a.tif"),
        source(path="/a.tif"),
        source(path="link/../a.tif"),
        source(bands=["B", "G", "R"]),
        source(bands={"R": 1, "G": 2, "B": 3}),
        source(modality="ms", bands=[str(number) for number in range(10)]),
        source(date="2020-05-02"),
        source(date="2020-05-01T11:00:00Z"),
        source(date_accuracy="year"),
        source(mask="mask.tif", masked=[1]),
        source(mask="mask.tif", masked=[2]),
        source(mask="mask.tif", masked_bits=[2]),
        source(scale=2),
        source(nodata=0),
        source(band_numbers={"R": {"scale": 2}}),
        {**LINE, "sources": [IMAGE, IMAGE]},
        {**LINE, "sources": [{**IMAGE, "reader": "patch", "gsd": 0.3}]},
        {**LINE, "sources": [{**IMAGE, "reader": "patch", "gsd": 0.4}]},
    ],
)
def test_whatever_decides_the_tile_counts(tmp_path, line):
    seen = {fingerprint(only_entry(tmp_path, LINE)), fingerprint(only_entry(tmp_path, PLACED))}
    entry = only_entry(tmp_path, line)
    assert line == PLACED or fingerprint(entry) not in seen
    assert fingerprint(replace(entry, fault="cannot be opened")) != fingerprint(entry)


def test_every_reader_and_scene_of_the_samples_has_one(tmp_path):
    entries = expanded(read_manifest(SAMPLES), SAMPLES).entries
    assert len({fingerprint(entry) for entry in entries}) == len(entries) > 20
    write_image(tmp_path / "a.tif", side=256)
    scene = {**LINE, "scene": {"cells": 2}}
    entries = {}
    for step in (2, 1):
        scene["scene"]["stride"] = step
        (tmp_path / "scene.jsonl").write_text(json.dumps(scene))
        tiles = expanded(read_manifest(tmp_path / "scene.jsonl"), "scene").entries
        assert len({fingerprint(tile) for tile in tiles}) == len(tiles)
        entries[step] = {tile.key: fingerprint(tile) for tile in tiles}
    assert entries[1]["a-r000-c000"] == entries[2]["a-r000-c000"]  # the same ground
    assert entries[1]["a-r001-c000"] != entries[2]["a-r001-c000"]


def test_files_far_away_count_with_the_way_to_them(tmp_path):
    line = source(path="/data/a.tif")
    here = fingerprint(only_entry(tmp_path, line))
    assert fingerprint(only_entry(tmp_path, line, name="other.jsonl")) == here
    assert fingerprint(only_entry(tmp_path / "b", line)) != here  # the tile records another way
