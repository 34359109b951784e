"""One line of a manifest cuts a large scene into tiles on its own pixels."""

import json
from collections import Counter

import numpy as np
import pytest
import rasterio
from affine import Affine

from data.errors import InputError
from data.prepare.run import prepare
from data.shards.pack import pack
from data.tiles.archive import read_tile, tile_keys
from tests.unit.manifests import write_csv, write_parquet

MS_BANDS = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
SHAPE = (500, 600)


def pixels(rows, columns):
    """Reflectance of ten bands that tells row and column: (10, H, W) uint16."""
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    planes = [300 + 2 * row + 20 * band for band in range(5)]
    planes += [350 + 2 * column + 20 * band for band in range(5)]
    return np.stack(planes).astype(np.uint16)


def write_scene(path, raw, *, corner=(600_000, 5_700_000), crs="EPSG:32631", **profile):
    profile = {
        "driver": "GTiff",
        "height": raw.shape[1],
        "width": raw.shape[2],
        "count": len(raw),
        "dtype": raw.dtype,
        "crs": crs,
        "transform": Affine(10, 0, corner[0], 0, -10, corner[1]),
        "nodata": 0,
        **profile,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(raw)


def optical(path, date="2020-05-01"):
    return {
        "reader": "geotiff_image",
        "path": str(path),
        "modality": "ms",
        "bands": MS_BANDS,
        "date": date,
    }


def record(key, *sources, scene, **keys):
    return {
        "key": key,
        "licence": "CC0-1.0",
        "attribution": "me",
        "sources": list(sources),
        "scene": scene,
        **keys,
    }


def prepared(folder, *records, **options):
    """The report and the lines of a run."""
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, records)))
    lines = []
    report = prepare(manifest, folder / "archive", workers=0, say=lines.append, **options)
    return report, lines


@pytest.mark.parametrize("phase", [0, 5, 3.7])
def test_every_tile_is_a_window_of_the_source_bit_for_bit(tmp_path, phase):
    raw = pixels(*SHAPE)
    write_scene(tmp_path / "a.tif", raw, corner=(600_000 + phase, 5_700_000 - phase))
    report, _ = prepared(
        tmp_path, record("a", optical("a.tif"), scene={"cells": 128, "stride": 100})
    )
    assert len(report["tiles"]) == 4 * 5 and report["rejected"] == []
    for row in range(4):
        for column in range(5):
            tile = read_tile(tmp_path / "archive", f"a-r{row:03d}-c{column:03d}")
            window = np.s_[:, 100 * row : 100 * row + 128, 100 * column : 100 * column + 128]
            assert (tile.arrays["ms"][0] == raw[window]).all() and tile.valid["ms"].all()
            assert tile.transform[2] == 600_000 + phase + 1000 * column
            assert tile.transform[5] == 5_700_000 - phase - 1000 * row
            assert tile.crs == "EPSG:32631" and tile.split == ""


def test_tiles_over_nothing_are_counted_and_not_listed(tmp_path):
    """The left half of the scene is empty, and so is most of a tile in the middle."""
    raw = pixels(256, 512)
    raw[:, :, :200] = 0
    write_scene(tmp_path / "a.tif", raw)
    report, lines = prepared(tmp_path, record("a", optical("a.tif"), scene={"cells": 128}))
    assert tile_keys(tmp_path / "archive") == [f"a-r00{r}-c00{c}" for r in (0, 1) for c in (2, 3)]
    assert report["rejected"] == []
    assert report["groups"]["a"] == {
        "made": 4,
        "rejected": 0,
        "splits": {},
        "left_out": {"with nothing, or less than half of the cells valid": 4},
    }
    assert "a: 4 tiles, 0 rejected, left out: 4 with nothing, or less than half" in lines[-1]


def test_other_sources_are_read_over_the_tiles_of_the_scene(tmp_path):
    """A series of two dates, and Sentinel-1 on pixels of its own whose part of a tile is read."""
    raw = pixels(256, 256)
    write_scene(tmp_path / "a.tif", raw)
    write_scene(tmp_path / "b.tif", raw + np.uint16(7))
    power = np.full((2, 100, 100), -10, np.float32)
    power[1] = -17
    write_scene(tmp_path / "s1.tif", power, corner=(600_000, 5_700_000), nodata=None)
    sar = {**optical("s1.tif"), "modality": "sar", "bands": ["VV", "VH"]}
    line = record(
        "a", sar, optical("a.tif"), optical("b.tif", "2020-06-01"), scene={"cells": 64, "grid": 1}
    )
    report, _ = prepared(tmp_path, line)
    assert len(report["tiles"]) == 16
    corner = read_tile(tmp_path / "archive", "a-r000-c000")
    assert corner.modalities == ["ms", "sar"] and corner.dates["ms"] == ["2020-05-01", "2020-06-01"]
    assert (corner.arrays["ms"][1] == raw[:, :64, :64] + 7).all()
    assert (corner.arrays["sar"][0] == power[:, :64, :64]).all()
    assert read_tile(tmp_path / "archive", "a-r003-c003").modalities == ["ms"]


def test_overlapping_scenes_agree_on_the_split_and_share_no_ground(tmp_path):
    """Two scenes whose right and left halves are one place, in blocks of 2 km."""
    raw = pixels(256, 512)
    write_scene(tmp_path / "a.tif", raw)
    write_scene(tmp_path / "b.tif", raw, corner=(602_560, 5_700_000))
    rule = {"cells": 32, "stride": 56, "validation": 0.4, "block_km": 1.5, "seed": 3}
    lines = [record(key, optical(f"{key}.tif"), scene=rule) for key in ("a", "b")]
    report, _ = prepared(tmp_path, *lines)
    ground = {name: np.zeros((256, 768), bool) for name in ("train", "validation")}
    for key in tile_keys(tmp_path / "archive"):
        tile = read_tile(tmp_path / "archive", key)
        column = int(tile.transform[2] - 600_000) // 10
        row = int(5_700_000 - tile.transform[5]) // 10
        ground[tile.split][row : row + 32, column : column + 32] = True
    assert ground["train"].any() and ground["validation"].any()
    assert not (ground["train"] & ground["validation"]).any()
    groups = report["groups"]
    for group in groups.values():
        assert group["left_out"]["between blocks of two splits"] > 0
        assert min(group["splits"].values()) > 0 and sum(group["splits"].values()) == group["made"]
    shards = pack(tmp_path / "archive", tmp_path / "shards", workers=0, say=lambda line: None)
    totals = Counter()
    for group in groups.values():
        totals.update(group["splits"])
    assert shards.splits == totals


def test_two_rules_of_a_split_are_refused(tmp_path):
    rules = [{"cells": 32, "validation": 0.1, "seed": seed} for seed in (0, 0, 1)]
    lines = [record(key, optical("a.tif"), scene=rule) for key, rule in zip("abc", rules)]
    with pytest.raises(InputError, match=r":3: scene: splits by .*seed 1, line 1 by .*seed 0"):
        prepared(tmp_path, *lines)


def test_the_tiles_are_the_same_whatever_the_number_of_workers(tmp_path):
    write_scene(tmp_path / "a.tif", pixels(256, 256))
    line = record("a", optical("a.tif"), scene={"cells": 64, "validation": 0.5, "block_km": 2})
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps(line))
    reports = [
        prepare(manifest, tmp_path / f"out{workers}", workers=workers, say=lambda line: None)
        for workers in (0, 2)
    ]
    assert reports[0] == reports[1] and len(reports[0]["tiles"]) > 4


def test_a_scene_that_cannot_be_read_is_one_rejection(tmp_path):
    write_scene(tmp_path / "a.tif", pixels(128, 128))
    lines = [
        record("gone", optical("gone.tif"), scene={"cells": 64}),
        record("a", optical("a.tif"), scene={"cells": 64}),
        record("small", optical("a.tif"), scene={"cells": 129}),
    ]
    report, _ = prepared(tmp_path, *lines)
    assert len(report["tiles"]) == 4
    assert [rejected["key"] for rejected in report["rejected"]] == ["gone", "small"]
    assert "no file" in report["rejected"][0]["notes"][0]
    assert "128 x 128 cells" in report["rejected"][1]["notes"][0]


def test_one_source_that_cannot_be_used_is_one_rejection(tmp_path):
    """No tile of the scene could be made."""
    write_scene(tmp_path / "a.tif", pixels(256, 256))
    turned = Affine(7, 7, 600_000, 7, -7, 5_700_000)
    write_scene(tmp_path / "turned.tif", pixels(256, 256), transform=turned)
    lines = [
        record("a", optical("a.tif"), scene={"cells": 128}),
        record("b", optical("a.tif"), optical("gone.tif"), scene={"cells": 16}),
        record("c", optical("turned.tif"), scene={"cells": 16}),
    ]
    report, _ = prepared(tmp_path, *lines)
    assert [rejected["key"] for rejected in report["rejected"]] == ["b", "c"]
    assert "gone.tif" in report["rejected"][0]["notes"][0]
    assert "turned" in report["rejected"][1]["notes"][0]


def test_a_damaged_scene_does_not_print_every_tile(tmp_path):
    """Its header is right, its pixels are not."""
    write_scene(tmp_path / "a.tif", pixels(256, 256))
    write_scene(tmp_path / "b.tif", pixels(640, 640), compress="deflate")
    data = bytearray((tmp_path / "b.tif").read_bytes())
    data[20_000:] = bytes(len(data) - 20_000)
    lines = [
        record("a", optical("a.tif"), scene={"cells": 128}),
        record("b", optical("b.tif"), scene={"cells": 32}),
    ]
    (tmp_path / "b.tif").write_bytes(data)
    report, printed = prepared(tmp_path, *lines)
    assert report["groups"]["b"]["rejected"] == len(report["rejected"]) > 100
    assert sum("tile rejected" in line for line in printed) == 3


def test_tables_and_lines_give_the_same_tiles(tmp_path):
    write_scene(tmp_path / "a.tif", pixels(128, 192))
    scene = {"cells": 64, "validation": 0.5}
    report, _ = prepared(tmp_path, record("a", optical("a.tif"), scene=scene))
    row = {**optical("a.tif"), "key": "a", "licence": "CC0-1.0", "attribution": "me"}
    write_csv(tmp_path / "m.csv", [{**row, "scene": scene}])
    write_parquet(tmp_path / "m.parquet", [{**row, "scene": scene}])
    for name in ("m.csv", "m.parquet"):
        other = prepare(tmp_path / name, tmp_path / f"out-{name}", workers=0, say=lambda line: None)
        assert other.pop("plan") != report["plan"]
        assert {**other, "plan": report["plan"]} == report


def test_an_explicit_split_is_carried(tmp_path):
    write_scene(tmp_path / "a.tif", pixels(64, 64))
    line = record("a", optical("a.tif"), scene=None, split="test")
    del line["scene"]
    prepared(tmp_path, line)
    assert read_tile(tmp_path / "archive", "a").split == "test"


def test_a_changed_scene_leaves_no_tiles_of_the_old_one(tmp_path):
    """A run ends early, the file shrinks, the same command goes on."""
    write_scene(tmp_path / "a.tif", pixels(256, 256))
    write_scene(tmp_path / "b.tif", np.zeros((10, 64, 64), np.uint16))
    lines = [
        record("a", optical("a.tif"), scene={"cells": 128}),
        {k: v for k, v in record("b", optical("b.tif"), scene=0).items() if k != "scene"},
    ]
    with pytest.raises(InputError, match="--max_rejected allows 0"):
        prepared(tmp_path, *lines, max_rejected=0)
    write_scene(tmp_path / "a.tif", pixels(128, 256))
    report, _ = prepared(tmp_path, *lines)
    assert tile_keys(tmp_path / "archive") == ["a-r000-c000", "a-r000-c001"]
    assert [tile["key"] for tile in report["tiles"]] == ["a-r000-c000", "a-r000-c001"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"scene": {}}, "scene: missing ['cells']"),
        ({"scene": {"cells": 0}}, "scene: cells: expected 1 to 1024"),
        ({"scene": {"cells": 64.5}}, "scene: cells: expected a whole number, found 64.5"),
        ({"scene": {"cells": 64, "strid": 3}}, "unknown key 'strid' (did you mean 'stride'?)"),
        ({"scene": {"cells": 64, "stride": 0}}, "stride: expected 1 or more"),
        ({"scene": {"cells": 64, "grid": 1}}, "grid: expected the number of one of the 1 sources"),
        ({"scene": {"cells": 64, "validation": 2}}, "validation: expected a share"),
        ({"scene": {"cells": 64, "block_km": 2}}, "block_km: goes with validation"),
        ({"scene": {"cells": 64, "validation": 0.1, "block_km": 1}}, "at least 1.28, twice"),
        ({"scene": {"cells": 64}, "centre": [3, 50], "cells": 9}, "cannot stand beside"),
        ({"scene": {"cells": 64, "validation": 0.1}, "split": "train"}, "beside the key split"),
        ({"scene": 3}, "scene: expected an object, found 3"),
        ({"scene": {"cells": 64}, "split": "val"}, "split: expected one of"),
    ],
)
def test_mistakes_are_told_before_the_run(tmp_path, change, words):
    line = {**record("a", optical("a.tif"), scene={"cells": 64}), **change}
    with pytest.raises(InputError) as error:
        prepared(tmp_path, line)
    assert words in str(error.value) and "manifest.jsonl:1: " in str(error.value)
