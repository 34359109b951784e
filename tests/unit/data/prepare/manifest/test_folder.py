"""A folder as one line of a manifest: which files make which tile, and what is refused."""

import json
import random
import time

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from data.prepare.manifest.pattern import Pattern
from data.prepare.manifest.read import read_manifest
from data.prepare.run import prepare
from data.tiles.archive import read_tile, tile_keys

HR = {"reader": "patch", "modality": "hr", "bands": ["R", "G", "B"], "gsd": 0.3}
SAR = {"reader": "patch", "modality": "sar", "bands": ["VV", "VH"], "gsd": 10}
RULE = {"reader": "folder", "licence": "CC0-1.0", "attribution": "me"}


def entries(folder, *sources, **keys):
    manifest = folder / "m.jsonl"
    manifest.write_text(json.dumps({**RULE, "sources": sources, **keys}))
    return read_manifest(manifest)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def files_of(folder, entry):
    return [reader.path.relative_to(folder).as_posix() for reader in entry.readers]


def test_a_folder_goes_into_an_archive(tmp_path):
    rng = np.random.default_rng(0)
    photos = {}
    for name in ("beach1", "river 2"):
        photos[name] = rng.integers(0, 256, (64, 64, 3), np.uint8)
        place = tmp_path / "data" / name[:-1].strip()
        place.mkdir(parents=True)
        Image.fromarray(photos[name]).save(place / f"{name}.png")
    (tmp_path / "data" / "beach" / "._beach1.png").write_text("of another system")
    rule = {**RULE, "attribution": "who took the {class}", "split": "test"}
    rule["sources"] = [{**HR, "path": "data/{class}/*.png", "pixels": "keep"}]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps(rule))
    lines = []
    report = prepare(manifest, tmp_path / "out", workers=0, say=lines.append)
    assert tile_keys(tmp_path / "out") == ["beach1", "river-2"]
    for name, photo in photos.items():
        tile = read_tile(tmp_path / "out", name.replace(" ", "-"))
        np.testing.assert_array_equal(tile.arrays["hr"], photo.transpose(2, 0, 1))
        assert tile.attribution == f"who took the {name[:-1].strip()}" and tile.split == "test"
        assert tile.source.startswith(f"data/{name[:-1].strip()}/{name}.png (")
    assert report["tiles"][0]["lon"] is None
    assert any("data/{class}/*.png: 2 tiles" in line for line in lines)


def test_files_with_one_name_are_one_tile_and_the_order_is_that_of_the_keys(tmp_path):
    names = [f"patch_{number:03d}" for number in range(40)]
    random.Random(1).shuffle(names)
    touch(tmp_path, *[f"s1/{name}_S1.npy" for name in names])
    touch(tmp_path, *[f"hr/a/b/{name}.png" for name in reversed(names)])
    found = entries(
        tmp_path, {**HR, "path": "hr/**/{name}.png"}, {**SAR, "path": "s1/{name}_S1.npy"}
    )
    assert [entry.key for entry in found] == sorted(names)
    for entry in found:
        assert files_of(tmp_path, entry) == [f"hr/a/b/{entry.key}.png", f"s1/{entry.key}_S1.npy"]


def test_fields_give_keys_and_dates_and_the_other_bands(tmp_path):
    for day in ("20200607", "20200903"):
        for band in ("VV", "VH"):
            touch(tmp_path, f"s1/0000200/S1A_{day}T010800/{band}.tif")
    template = "s1/{place}/S1A_{date}T{clock}"
    source = {"reader": "geotiff_bands", "modality": "sar", "date": "{date}"}
    source["files"] = {band: f"{template}/{band}.tif" for band in ("VV", "VH")}
    (entry,) = entries(tmp_path, source, key="p{place}", fields={"date": "[0-9]{8}"})
    assert entry.key == "p0000200"
    assert [reader.date[:10] for reader in entry.readers] == ["2020-06-07", "2020-09-03"]
    for reader in entry.readers:
        folder = tmp_path / f"s1/0000200/S1A_{reader.date[:10].replace('-', '')}T010800"
        assert reader.files == {"VV": folder / "VV.tif", "VH": folder / "VH.tif"}


def test_a_source_may_be_missing_where_the_rule_says_so(tmp_path):
    touch(tmp_path, "hr/a.png", "hr/b.png", "s1/b.npy")
    sources = [{**HR, "path": "hr/*.png"}, {**SAR, "path": "s1/*.npy", "optional": True}]
    first, second = entries(tmp_path, *sources)
    assert files_of(tmp_path, first) == ["hr/a.png"]
    assert files_of(tmp_path, second) == ["hr/b.png", "s1/b.npy"]


def test_a_field_that_stands_twice_has_one_value(tmp_path):
    touch(tmp_path, "a/a_1.png", "a/b_2.png", "b/b_3.png")
    pattern = Pattern("{class}/{class}_{name}.png", {})
    assert [match.path for match in pattern.matches(tmp_path)] == ["a/a_1.png", "b/b_3.png"]
    pattern = Pattern("?/{x}_{x}.png", {})
    touch(tmp_path, "c/9_9.png")
    assert [match.fields for match in pattern.matches(tmp_path)] == [{"x": "9"}]


REFUSED = {
    "nothing": (
        [{**HR, "path": "images/*.png"}],
        {},
        "'images/*.png' matches no file; {}/images holds a.jpg, b.jpg, c.jpg and 1 more",
    ),
    "no folder": ([{**HR, "path": "image/*.jpg"}], {}, "there is no folder {}/image"),
    "lacking": (
        [{**HR, "path": "images/*.jpg"}, {**SAR, "path": "s1/*.npy"}],
        {},
        "sources[1]: 3 of 4 tiles have no file 's1/*.npy': b, c, d; correct the names, or give "
        "the source 'optional': true",
    ),
    "one name twice": (
        [{**HR, "path": "**/*.jpg"}],
        {},
        "images/a.jpg and other/a.jpg would be one tile, as in 1 cases; name what they differ in",
    ),
    "no such field": (
        [{**HR, "path": "images/*.jpg"}],
        {"key": "{class}-{name}"},
        "key '{class}-{name}': sources[0] has no {class}, only ['name']",
    ),
    "a wrong reader": (
        [{**HR, "path": "images/*.jpg", "modality": "rgb", "gds": 1}],
        {},
        "sources[0]: unknown key 'gds' (did you mean 'gsd'?)",
    ),
    "a wrong date in a name": (
        [{**HR, "path": "images/*.jpg", "date": "{name}"}],
        {},
        "date 'a': expected YYYY-MM-DD",
    ),
    "no expression": (
        [{**HR, "path": "images/{name}.jpg"}],
        {"fields": {"name": "("}},
        "fields: not a regular expression",
    ),
    "an unused field": (
        [{**HR, "path": "images/*.jpg"}],
        {"fields": {"nam": "."}},
        "fields: no path has {nam} (did you mean 'name'?)",
    ),
    "an address": ([{**HR, "path": "s3://b/*.jpg"}], {}, "of this file system"),
    "unknown keys": ([{**HR, "path": "images/*.jpg"}], {"where": "a"}, "unknown key 'where'"),
    "a wrong split": (
        [{**HR, "path": "images/*.jpg"}],
        {"split": "val"},
        "split: expected one of ['train', 'validation', 'test']",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_told_with_names_that_are_there(tmp_path, name):
    touch(tmp_path, *[f"images/{letter}.jpg" for letter in "abcd"], "other/a.jpg", "s1/a.npy")
    sources, keys, message = REFUSED[name]
    with pytest.raises(InputError) as error:
        entries(tmp_path, *sources, **keys)
    assert f"{tmp_path}/m.jsonl:1: " in str(error.value)
    assert message.replace("{}", str(tmp_path)) in str(error.value)


def test_a_large_folder_is_cheap(tmp_path):
    for number in range(40):
        folder = tmp_path / f"class{number}"
        folder.mkdir()
        for name in range(100):
            (folder / f"{name}.png").touch()
    start = time.process_time()
    found = entries(tmp_path, {**HR, "path": "{class}/{name}.png"}, key="{class}-{name}")
    assert len(found) == 4000
    assert time.process_time() - start < 3
