"""The whole audit: the real command over good and damaged shards, in any number of processes."""

import json
import re
import shutil
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from data.audit.findings import (
    BandFindings,
    Chart,
    ClassCount,
    ClassFindings,
    RegistrationFindings,
    SharedShift,
    Verdict,
)
from data.audit.record import Record
from data.audit.registration import Registration
from data.audit.run import audit, spread
from data.audit.summary import summarise
from data.audit.tally import Tally
from data.audit.verdicts import classes, clipped, off, registered
from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.tiles.tile import UNLABELLED, Tile
from launch.__main__ import main
from tests.commands import skysense
from tests.pages import Page
from tests.unit.data.audit.test_registration import displaced
from tests.unit.tiles import make_tile


def tile_pair(key: str, seed: int, down: int = 0, right: int = 0, cells: int = 32) -> Tile:
    """A tile whose high resolution is moved by pixels against its Sentinel-2 frames; the second one
    is the clearest."""
    tile = make_tile(key, seed, cells, ("hr", "ms"), clouds=0.5)
    fine, coarse = displaced(np.random.default_rng(seed), cells, 0.8, down, right)
    grey = 128 + 40 * (fine - fine.mean()) / fine.std()
    tile.arrays["hr"] = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[None], 3, 0)
    tile.arrays["ms"][1, :] = np.clip(coarse, 1, 60_000).astype(np.uint16)
    tile.valid["ms"][1], tile.valid["hr"][:] = True, True
    return tile


@pytest.fixture(scope="module")
def tiles():
    """Nine small tiles, two with large images of which one is displaced, and one more that repeats
    another's bytes."""
    found = [
        make_tile(f"t{i}", i, 4 + i % 3, (("hr", "ms", "sar"), ("ms",), ("hr",))[i % 3], i % 2 == 0)
        for i in range(9)
    ]
    found += [tile_pair("in-place", 50), tile_pair("displaced", 51, down=48, right=-32)]
    copy = make_tile("copy-of-t0", 0, 4)
    return [*found, copy]


@pytest.fixture(scope="module")
def good(tiles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "shards"
    write_shards(tiles, folder, ShardOptions(samples_per_shard=5))
    return folder


@pytest.fixture(scope="module")
def found(good):
    dataset = ShardDataset.open(good)
    return asdict(summarise(dataset, *audit(dataset)))


def verdict(summary: dict, words: str) -> str:
    return next(v["verdict"] for v in summary["verdicts"] if words in v["question"])


def damage(shards: Path, key: str, field: str) -> None:
    """Turn one byte in the middle of a member over."""
    dataset = ShardDataset.open(shards)
    sample = dataset.keys().index(key)
    member = dataset.entry(sample).members[field]
    tar = shards / f"{dataset.shard_name(sample)}.tar"
    data = bytearray(tar.read_bytes())
    data[member.offset + member.size // 2] ^= 255
    tar.write_bytes(data)


def test_counts_are_those_of_the_tiles(tiles, found):
    assert found["audited"] == found["samples"] == len(tiles) and found["failures"] == []
    for name in ("hr", "ms", "sar"):
        having = [tile for tile in tiles if name in tile.arrays]
        series = found["series"][name]
        assert series["samples"] == len(having) == found["counts"]["modalities"][name]
        assert series["frames"] == sum(len(tile.dates[name]) for tile in having)
        assert series["usable_frames"] == sum(
            int(tile.valid[name].any((1, 2)).sum()) for tile in having
        )
        cells = sum(tile.valid[name].size for tile in having)
        assert series["invalid_share"] == pytest.approx(
            sum((~tile.valid[name]).sum() for tile in having) / cells
        )
        for month in range(1, 13):
            masks = [
                mask
                for tile in having
                for mask, day in zip(tile.valid[name], tile.dates[name])
                if date.fromisoformat(day).month == month
            ]
            assert series["months"][month] == len(masks)
            share = series["invalid_share_by_month"][month]
            assert (
                share is None
                if not masks
                else share
                == pytest.approx(1 - sum(m.sum() for m in masks) / sum(m.size for m in masks))
            )
        worst = min(having, key=lambda tile: tile.valid[name].mean())
        assert series["fewest_valid"][0]["valid_share"] == pytest.approx(worst.valid[name].mean())
    gaps = [
        (date.fromisoformat(b) - date.fromisoformat(a)).days
        for tile in tiles
        if "ms" in tile.dates
        for a, b in zip(tile.dates["ms"], tile.dates["ms"][1:])
    ]
    assert found["series"]["ms"]["gap_longest_days"] == max(gaps)
    assert found["series"]["ms"]["gap_median_days"] == np.percentile(
        gaps, 50, method="inverted_cdf"
    )
    labels = np.concatenate(
        [tile.arrays["labels"].ravel() for tile in tiles if "labels" in tile.arrays]
    )
    assert found["classes"]["labelled_share"] == pytest.approx((labels != UNLABELLED).mean())
    for entry in found["classes"]["table"]:
        assert entry["pixels"] == (labels == entry["index"]).sum()
        assert entry["samples"] == sum(
            (tile.arrays["labels"] == entry["index"]).any()
            for tile in tiles
            if "labels" in tile.arrays
        )
    assert sum(region["samples"] for region in found["places"]["regions"]) == len(tiles)


def test_what_is_wrong_is_found(found):
    registration = found["registration"]
    assert registration["judged"] == 2 and registration["beyond_limit"] == 1
    worst, other = registration["worst"]
    assert (
        worst["key"] == "displaced" and other["key"] == "in-place" and other["distance_cells"] < 0.3
    )
    np.testing.assert_allclose((worst["down_cells"], worst["right_cells"]), (1.5, -1.0), atol=0.3)
    assert sum(registration["cannot_tell"].values()) == 4  # t0, t3, t6 and the copy are too small
    pairs = found["duplicates"]
    assert [sorted(pair) for pair in pairs["same_bytes"]["first"]] == [["copy-of-t0", "t0"]]
    assert [sorted(pair) for pair in pairs["same_picture"]["first"]] == [["copy-of-t0", "t0"]]
    assert pairs["same_key"] == {"pairs": 0, "first": []} and pairs["overlapping"]["pairs"] >= 1
    assert (
        verdict(found, "lie on Sentinel-2") == "look"
        and verdict(found, "samples different") == "look"
    )
    assert verdict(found, "whole") == "good" and verdict(found, "class seen") == "look"


def test_processes_do_not_change_a_bit(good, found):
    dataset = ShardDataset.open(good)
    again = asdict(summarise(dataset, *audit(dataset, workers=2)))
    assert json.dumps(again) == json.dumps(found)


def test_some_samples_are_spread():
    assert spread(10, None).tolist() == list(range(10)) == spread(10, 50).tolist()
    chosen = spread(1000, 7)
    assert len(set(chosen.tolist())) == 7 and np.ptp(np.diff(chosen)) <= 1
    with pytest.raises(InputError, match="at least 1 sample"):
        spread(10, 0)


def test_the_command_on_good_shards(good, tmp_path):
    done = skysense("audit", good, "--out", tmp_path / "out", "--workers", 2, "--statistics")
    assert done.returncode == 0, done.stderr
    assert (
        "[12/12]" in done.stdout
        and "mean=(" in done.stdout
        and "worth a look: Is every class seen?" in done.stdout
    )
    summary = json.loads((tmp_path / "out/audit.json").read_text())
    assert summary["audited"] == 12
    page = Page((tmp_path / "out/audit.html").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "audit.html",
        "audit.json",
    ]
    assert not page.open and not {"script", "link", "iframe"} & set(
        page.tags
    )  # well formed, and nothing runs
    assert all(
        link.startswith(("#", "data:image/png")) for link in page.references
    )  # nothing is fetched
    assert page.references and re.search("displaced", "".join(page.words))
    few = skysense("audit", good, "--out", tmp_path / "few", "--samples", 3, "--workers", 0)
    assert (
        few.returncode == 0
        and json.loads((tmp_path / "few/audit.json").read_text())["audited"] == 3
    )


def test_damaged_members_are_named_and_the_audit_goes_on(tiles, good, tmp_path):
    shards = shutil.copytree(good, tmp_path / "shards")
    for key, field in (
        ("t0", "ms"),
        ("t0", "labels"),
        ("t2", "hr"),
        ("t4", "ms_valid"),
        ("t7", "meta"),
    ):
        damage(shards, key, field)
    done = skysense("audit", shards, "--out", tmp_path / "out", "--workers", 2)
    assert done.returncode == 1, done.stderr
    summary = json.loads((tmp_path / "out/audit.json").read_text())
    assert {(f["key"], f["field"]) for f in summary["failures"]} == {
        ("t0", "ms"),
        ("t0", "labels"),
        ("t2", "hr"),
        ("t4", "ms_valid"),
        ("t7", "meta"),
    }
    keys = ShardDataset.open(good).keys()
    for failure in summary["failures"]:
        assert "CRC32C" in failure["reason"] and re.fullmatch(r"shard-\d{6}", failure["shard"])
        assert f"{failure['shard']}.tar" in failure["reason"] and failure["key"] in keys
    assert summary["corrupt_samples"] == 4 and summary["audited"] == 12
    assert summary["verdicts"][0]["verdict"] == "wrong"
    # What is whole is counted as if the others were not there.
    bad = {failure["key"] for failure in summary["failures"]}
    whole = [tile for tile in tiles if tile.key not in bad and "sar" in tile.arrays]
    assert summary["bands"]["sar"][0]["pixels"] == sum(
        int(tile.valid["sar"].sum()) for tile in whole
    )
    page = (tmp_path / "out/audit.html").read_text()
    assert "Damaged members" in page and "wrong: Is every member whole?" in done.stdout


def test_a_damaged_index_costs_its_samples_only(good, tmp_path):
    shards = shutil.copytree(good, tmp_path / "shards")
    index = sorted(shards.glob("shard-*.index*"))[0]
    data = bytearray(index.read_bytes())
    data[len(data) * 3 // 4] ^= 1  # the size stays, so that only reading finds it
    index.write_bytes(data)
    dataset = ShardDataset.open(shards)
    summary = asdict(summarise(dataset, *audit(dataset)))
    assert summary["audited"] == 12 and 1 <= summary["corrupt_samples"] <= 5
    assert {(f["key"], f["field"], f["shard"]) for f in summary["failures"]} == {
        (None, "index", "shard-000000")
    }
    assert sum(summary["counts"]["cells"].values()) == 12 - summary["corrupt_samples"]


@pytest.mark.parametrize("days", [["2019-13-01"] * 5, ["2019-05-01", "2019-03-01"], ["20190301"]])
def test_wrong_dates_cost_their_sample_only(good, monkeypatch, days):
    dataset = ShardDataset.open(good)
    stored_entry = dataset.entry

    def entry_with_wrong_dates(sample):
        entry = stored_entry(sample)
        if entry["key"] != "t1":
            return entry
        return {**entry, "dates": {"ms": days}}

    monkeypatch.setattr(dataset, "entry", entry_with_wrong_dates)
    tally, _ = audit(dataset)
    assert [(failure.key, failure.field) for failure in tally.failures] == [("t1", "index")]
    assert tally.samples == 12
    assert tally.corrupt == 1
    assert len(tally.columns.lon) == 12


def test_checksums_that_fit_do_not_hide_wrong_content(tmp_path, monkeypatch):
    """What the writer packed wrongly has a good checksum: decoding finds it."""
    tile = make_tile("a", 0, labels=False)
    tile.arrays["labels"] = np.full((48, 48), 200, np.uint8)  # no such class
    monkeypatch.setattr("data.shards.writer.check_tile", lambda tile: None)
    cut = make_tile("b", 1, modalities=("ms",), labels=False)
    cut.cells = 7  # its arrays have 6
    write_shards([tile, cut, make_tile("c", 2)], tmp_path / "shards")
    dataset = ShardDataset.open(tmp_path / "shards")
    tally, _ = audit(dataset)
    assert {(failure.key, failure.field) for failure in tally.failures} == {
        ("a", "labels"),
        ("b", "ms"),
    }
    assert "[200]" in next(f.reason for f in tally.failures if f.key == "a")
    assert tally.samples == 3 and tally.corrupt == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("nowhere", "--out", "out"), "manifest.json"),
        (
            ("{good}", "--out", "{good}/manifest.json"),
            "expected a folder for the audit, found a file",
        ),
        (("{good}", "--out", "out", "--samples", "0"), "expected at least 1 sample, found 0"),
        (("{good}", "--out", "out", "--workers", "-1"), "expected workers >= 0, found -1"),
    ],
)
def test_wrong_input_is_one_line(good, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    command = ["audit", *(part.format(good=good) for part in arguments)]
    with pytest.raises(SystemExit) as left:
        main(command)
    said = capsys.readouterr().err
    assert left.value.code == 2 and words in said
    assert said.startswith("error: ") and len(said.splitlines()) == 1, said


def test_verdicts_follow_their_limits():
    band = BandFindings(
        band="R",
        pixels=100,
        mean=10.0,
        std=2.0,
        low=0.0,
        high=1.0,
        share_at_low=0.001,
        share_at_high=0.02,
        percentiles={},
        registry_mean=10.4,
        registry_std=2.0,
        histogram=Chart([], []),
    )
    assert off(band) == ""
    assert off(replace(band, registry_mean=10.6)) == "mean"
    assert off(replace(band, std=2.6)) == off(replace(band, std=1.5)) == "std"
    assert off(replace(band, std=1.7)) == ""
    assert off(replace(band, registry_mean=10.8, std=2.6)) == "mean and std"
    assert clipped({"hr": [band]}).numbers == "hr R 2.0 % at 1"
    assert clipped({"hr": [band]}).verdict == "look"
    assert clipped({"hr": [replace(band, share_at_high=0.0)]}).verdict == "good"
    assert clipped({}).verdict == "unknown"


def test_a_class_that_never_occurs_is_named():
    road = ClassCount(index=0, name="road", pixels=4, share=1.0, samples=1)
    sand = ClassCount(index=1, name="sand", pixels=0, share=0.0, samples=0)
    found = ClassFindings(samples_with_labels=1, pixels=4, labelled_share=1.0, table=[road, sand])
    assert classes(found) == Verdict(
        "Is every class seen?", "look", "1 of 2 seen; never: sand", "all"
    )
    assert classes(replace(found, table=[road])).verdict == "good"
    assert classes(replace(found, samples_with_labels=0)).verdict == "unknown"


def shared_shift(distance: float | None) -> SharedShift:
    return SharedShift(
        attribution="a source",
        tiles=30,
        reason="",
        t=None,
        down_cells=None,
        right_cells=None,
        distance_cells=distance,
        correlation_as_stored=None,
        correlation_at_best=None,
    )


def test_shifts_are_judged_alone_and_together():
    none = RegistrationFindings(
        judged=0,
        cannot_tell={"small": 9},
        median_cells=None,
        beyond_limit=0,
        limit_cells=1.0,
        worst=[],
        shared=[],
    )
    assert registered(none).verdict == "unknown"
    two = replace(none, judged=2, median_cells=0.2)
    assert registered(two).verdict == "good"
    assert registered(replace(two, beyond_limit=1)).verdict == "look"
    for distance, verdict in ((None, "unknown"), (0.9, "good"), (1.1, "look")):
        assert registered(replace(none, shared=[shared_shift(distance)])).verdict == verdict


def test_memory_of_the_tally_does_not_follow_the_series():
    """Worst lists stay short, and only the columns grow."""
    tally = Tally()
    for i in range(500):
        tally.add(
            Record(
                i,
                "s",
                key=f"k{i}",
                region=i % 7,
                cells=8,
                dates={"ms": ["2020-01-01", "2020-02-01"]},
                usable={"ms": 2},
                invalid={"ms": [i % 64, 0]},
                registration=Registration(
                    (i / 100, 0.0), stored_correlation=0.1, best_correlation=0.5, lead=0.2
                ),
            )
        )
    assert [shifted.key for shifted in tally.shifts] == [f"k{i}" for i in range(499, 489, -1)]
    assert len(tally.series["ms"].emptiest) == len(tally.series["ms"].longest) == 10
    assert tally.series["ms"].emptiest[0][0] == pytest.approx(1 - 63 / 128)
    assert len(tally.columns.lon) == len(tally.distances) == 500
    assert tally.columns.lon.itemsize * 500 == 4000
