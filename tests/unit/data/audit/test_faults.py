"""Faults of real archives are planted into copies of the bundled tiles: all are found, and nothing
else."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from data.audit.findings.summary import summarise
from data.audit.run import audit
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.tiles.archive import read_tile, tile_keys
from data.tiles.tile import Tile
from launch.__main__ import main

Change = Callable[[Tile], None]


def change(sensor: str, function: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Replace the numbers of a sensor, or the labels, in their type."""

    def apply(tile: Tile) -> None:
        before = tile.arrays[sensor]
        tile.arrays[sensor] = np.ascontiguousarray(function(before)).astype(before.dtype)

    return apply


def exchange(sensor: str, one: int, other: int) -> Change:
    """Exchange two bands."""

    def apply(tile: Tile) -> None:
        tile.arrays[sensor][:, [one, other]] = tile.arrays[sensor][:, [other, one]]

    return apply


def invert_mask(sensor: str) -> Change:
    """Mark what is invalid as valid, and the other way round."""

    def apply(tile: Tile) -> None:
        tile.valid[sensor] = ~tile.valid[sensor]

    return apply


def set_date(sensor: str, frame: int, day: str) -> Change:
    """Give a frame another date."""

    def apply(tile: Tile) -> None:
        tile.dates[sensor][frame] = day

    return apply


def fill(sensor: str, band: int, value: int) -> Change:
    """Give all pixels of a band one number."""

    def apply(tile: Tile) -> None:
        tile.arrays[sensor][..., band, :, :] = value

    return apply


def raised(numbers: np.ndarray) -> np.ndarray:
    """Reflectance as baseline 04.00 stores it."""
    return np.where(numbers > 0, numbers + 1000, 0)


# name of the copy -> tile, fault, and the sensor and kind that must be found
PLANTED: dict[str, tuple[str, Change, tuple[str, str]]] = {
    "ten-times": ("treesat-sample-38900", change("ms", lambda x: x * 10), ("ms", "unit")),
    "ten-times-series": (
        "treesat-quercus-robur-3-86918",
        change("ms", lambda x: np.minimum(x.astype(int) * 10, 65_535)),
        ("ms", "unit"),
    ),
    "tenth": ("treesat-sample-39116", change("ms", lambda x: x // 10), ("ms", "scale")),
    "zero-to-one": ("treesat-sample-7941", change("ms", lambda x: x // 10_000), ("ms", "mask")),
    "offset": ("treesat-sample-33914", change("ms", raised), ("ms", "offset")),
    "red-for-infrared": ("treesat-sample-7941", exchange("ms", 2, 6), ("ms", "bands exchanged")),
    "blue-for-green": ("treesat-sample-43859", exchange("ms", 0, 1), ("ms", "bands exchanged")),
    "constant": ("treesat-sample-39116", fill("ms", 4, 1234), ("ms", "constant band")),
    "clouds-for-sky": ("treesat-quercus-robur-7-85750", invert_mask("ms"), ("ms", "mask")),
    "before-launch": (
        "treesat-betula-spec-1-15679",
        set_date("ms", 0, "1970-01-01"),
        ("ms", "date"),
    ),
    "future": ("treesat-betula-spec-5-17172", set_date("ms", -1, "2199-01-01"), ("ms", "date")),
    "power": ("treesat-sample-19989", change("sar", lambda x: 10 ** (x / 10)), ("sar", "unit")),
    "amplitude": (
        "flanders-00002806639B424A",
        change("sar", lambda x: 10 ** (x / 20)),
        ("sar", "unit"),
    ),
    "numbers": (
        "treesat-abies-alba-1-1005",
        change("sar", lambda x: np.minimum(500 * 10 ** (x / 20), 300)),
        ("sar", "unit"),
    ),
    "tens-of-db": ("treesat-sample-33914", change("sar", lambda x: x * 10), ("sar", "unit")),
    "vv-for-vh": (
        "treesat-sample-26743",
        exchange("sar", 0, 1),
        ("sar", "polarisations exchanged"),
    ),
    "shifted": (
        "flair-sample-3325",
        change("labels", lambda x: np.roll(x, (12, -8), (0, 1))),
        ("labels", "displaced"),
    ),
    "turned": ("flair-sample-4521", change("labels", np.rot90), ("labels", "displaced")),
    "mirrored": ("kampala-south", change("labels", np.flipud), ("labels", "displaced")),
    "turned-on-cells": (
        "flanders-00002806639B424A",
        change("labels", lambda x: np.rot90(x, 2)),
        ("labels", "displaced"),
    ),
    "flat-green": ("flair-sample-6860", fill("hr", 1, 128), ("hr", "constant band")),
    "dark": ("flair-sample-3386", change("hr", lambda x: x // 16), ("hr", "bit depth")),
    "cut": (
        "treesat-sample-17687",
        change("hr", lambda x: np.minimum(x.astype(int) * 8, 255)),
        ("hr", "bit depth"),
    ),
    "wrapped": ("flair-sample-2349", change("hr", lambda x: x * 8), ("hr", "bit depth")),
    "blue-first": ("kampala-south-east", change("hr", np.flipud), ("hr", "bands exchanged")),
    "nothing-valid": ("treesat-quercus-robur-7-86717", invert_mask("hr"), ("hr", "mask")),
    "edges-valid": ("kampala-north-east", invert_mask("hr"), ("hr", "mask")),
    "long-ago": ("treesat-betula-spec-9-19083", set_date("hr", 0, "1950-07-01"), ("hr", "date")),
}
# Nature, an old archive, or chance on pixels of 10 m can do the same.
LOOKS = {"blue-first", "long-ago", "turned-on-cells"}


def exit_status(*words: object) -> int:
    """Run the audit in this process."""
    try:
        main(["audit", *map(str, words), "--workers", "0"])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.fixture(scope="module")
def planted(shards, tmp_path_factory) -> Path:
    """Shards of all bundled tiles and the copies with faults."""
    archive = shards.parent / "archive"
    tiles = [read_tile(archive, key) for key in tile_keys(archive)]
    for number, (name, (key, apply, _)) in enumerate(PLANTED.items()):
        copy = deepcopy(next(tile for tile in tiles if tile.key == key))
        copy.key = f"planted-{name}"
        copy.lon += 0.01 * (number + 1)
        apply(copy)
        tiles.append(copy)
    folder = tmp_path_factory.mktemp("planted") / "shards"
    write_shards(tiles, folder, ShardOptions())
    return folder


@pytest.fixture(scope="module")
def written(planted, tmp_path_factory) -> Path:
    """Folder of the audit that the command made of them; its exit status is 1."""
    out = tmp_path_factory.mktemp("audit")
    assert exit_status(planted, "--out", out) == 1
    return out


@pytest.fixture(scope="module")
def found(written) -> dict[str, list[dict]]:
    """Key of a tile -> its faults."""
    faults: dict[str, list[dict]] = {}
    for tile in json.loads((written / "audit.json").read_text())["suspects"]["tiles"]:
        faults.setdefault(tile["key"], []).append(tile)
    return faults


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(found, name):
    sensor, kind = PLANTED[name][2]
    faults = found.get(f"planted-{name}", [])
    verdicts = {fault["verdict"] for fault in faults if fault["kind"] == kind}
    expected = "look" if name in LOOKS else "wrong"
    assert expected in verdicts
    assert (expected == "look") == (verdicts == {"look"})
    # and nothing is said about what was left alone
    assert {fault["sensor"] for fault in faults} == {sensor}


def test_nothing_is_found_in_tiles_without_a_fault(found):
    assert [key for key in found if not key.startswith("planted-")] == []


def test_the_page_shows_the_worst_with_pictures_and_reasons(written):
    page = (written / "audit.html").read_text()
    assert "Tiles and sources with faults" in page
    assert "turned by 90 degrees to the left" in page
    assert page.count("<figcaption>hr ") >= 5
    assert "coniferous forest" in page


def test_the_bundled_tiles_alone_are_clean(shards, tmp_path):
    assert exit_status(shards, "--out", tmp_path, "--strict") == 0
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert summary["suspects"] == {"counts": [], "tiles": [], "sources": []}


def test_sources_have_their_dates(shards):
    dataset = ShardDataset.open(shards)
    summary = summarise(dataset, *audit(dataset))
    flair = next(source for source in summary.sources if "FLAIR" in source.source)
    days = sorted(
        dataset.entry(sample).dates["hr"][0]
        for sample in range(len(dataset))
        if dataset.entry(sample).key.startswith("flair")
    )
    hr = flair.sensors["hr"]
    assert (hr.tiles, hr.frames, hr.first, hr.last) == (5, 5, days[0], days[-1])
    assert sum(hr.years.values()) == 5
    assert hr.years[int(days[0][:4])] == sum(day[:4] == days[0][:4] for day in days)


def test_a_look_counts_where_it_is_asked_for(shards, tmp_path):
    archive = shards.parent / "archive"
    tiles = [read_tile(archive, key) for key in tile_keys(archive) if key.startswith("kampala")]
    tiles[0].arrays["hr"] = np.ascontiguousarray(tiles[0].arrays["hr"][::-1])
    write_shards(tiles, tmp_path / "shards", ShardOptions())
    words = [tmp_path / "shards", "--out", tmp_path / "out"]
    assert exit_status(*words) == 0
    assert exit_status(*words, "--strict") == 1
