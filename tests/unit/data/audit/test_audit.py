"""The whole audit: the real command over good and damaged shards, in any number of processes."""

import json
import re
import shutil
from dataclasses import asdict
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data.audit.findings.records import KeyPairs, Summary
from data.audit.findings.summary import summarise
from data.audit.run import Blocks, Spread, audit
from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.tiles.definitions import read_sensors
from data.tiles.tile import UNLABELLED, Tile
from launch.__main__ import main
from tests.commands import skysense
from tests.pages import Page
from tests.unit.data.audit.measure.test_registration import displaced
from tests.unit.tiles import make_tile


def tile_pair(key: str, seed: int, down: int = 0, right: int = 0, cells: int = 32) -> Tile:
    """A tile whose high resolution is moved by pixels against its Sentinel-2 frames.

    The second frame is the clearest.
    """
    tile = make_tile(key, seed, cells, ("hr", "ms"), clouds=0.5)
    fine, coarse = displaced(np.random.default_rng(seed), cells, 0.8, down, right)
    grey = 128 + 40 * (fine - fine.mean()) / fine.std()
    tile.arrays["hr"] = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[None], 3, 0)
    tile.arrays["ms"][1, :] = np.clip(coarse, 1, 60_000).astype(np.uint16)
    tile.valid["ms"][1] = True
    tile.valid["hr"][:] = True
    return tile


@pytest.fixture(scope="module")
def tiles():
    """Nine small tiles, two large ones of which one is displaced, and a copy of the first."""
    sensors = (("hr", "ms", "sar"), ("ms",), ("hr",))
    tiles = []
    for i in range(9):
        tiles.append(
            make_tile(
                f"t{i}",
                seed=i,
                cells=4 + i % 3,
                modalities=sensors[i % 3],
                labels=i % 2 == 0,
            )
        )
    tiles.append(tile_pair("in-place", 50))
    tiles.append(tile_pair("displaced", 51, down=48, right=-32))
    tiles.append(make_tile("copy-of-t0", 0, 4))
    return tiles


@pytest.fixture(scope="module")
def good(tiles, tmp_path_factory):
    """A folder of shards without a fault."""
    folder = tmp_path_factory.mktemp("audit") / "shards"
    write_shards(tiles, folder, ShardOptions(samples_per_shard=5))
    return folder


@pytest.fixture(scope="module")
def summary(good) -> Summary:
    """What an audit finds in the good shards."""
    dataset = ShardDataset.open(good)
    return summarise(dataset, *audit(dataset))


def verdict(summary: Summary, words: str) -> str:
    """The answer to the question that contains some words."""
    return next(answer.verdict for answer in summary.verdicts if words in answer.question)


def damage(shards: Path, key: str, field: str) -> None:
    """Turn one byte in the middle of a member over."""
    dataset = ShardDataset.open(shards)
    sample = dataset.keys().index(key)
    member = dataset.entry(sample).members[field]
    tar = shards / f"{dataset.shard_name(sample)}.tar"
    content = bytearray(tar.read_bytes())
    content[member.offset + member.size // 2] ^= 255
    tar.write_bytes(content)


@pytest.mark.parametrize("name", ["hr", "ms", "sar"])
def test_frames_are_those_of_the_tiles(tiles, summary, name):
    tiles = [tile for tile in tiles if name in tile.arrays]
    series = summary.series[name]
    assert series.samples == summary.counts.modalities[name] == len(tiles)
    assert series.frames == sum(len(tile.dates[name]) for tile in tiles)
    assert series.usable_frames == sum(tile.valid[name].any((1, 2)).sum() for tile in tiles)
    cells = sum(tile.valid[name].size for tile in tiles)
    invalid = sum((~tile.valid[name]).sum() for tile in tiles)
    assert series.invalid_share == pytest.approx(invalid / cells)
    worst = min(tile.valid[name].mean() for tile in tiles)
    assert series.fewest_valid[0].valid_share == pytest.approx(worst)


@pytest.mark.parametrize("name", ["hr", "ms", "sar"])
def test_months_are_those_of_the_tiles(tiles, summary, name):
    masks = {month: [] for month in range(1, 13)}
    for tile in tiles:
        if name in tile.arrays:
            for mask, day in zip(tile.valid[name], tile.dates[name]):
                masks[date.fromisoformat(day).month].append(mask.ravel())
    series = summary.series[name]
    for month in range(1, 13):
        assert series.months[month] == len(masks[month])
        share = series.invalid_share_by_month[month]
        if masks[month]:
            assert share == pytest.approx(1 - np.concatenate(masks[month]).mean())
        else:
            assert share is None


def test_gaps_are_those_of_the_tiles(tiles, summary):
    gaps = []
    for tile in tiles:
        days = [date.fromisoformat(day) for day in tile.dates.get("ms", [])]
        gaps += [(after - before).days for before, after in pairwise(days)]
    assert summary.series["ms"].gap_longest_days == max(gaps)
    median = np.percentile(gaps, 50, method="inverted_cdf")
    assert summary.series["ms"].gap_median_days == median


def test_classes_are_those_of_the_tiles(tiles, summary):
    labels = [tile.arrays["labels"] for tile in tiles if "labels" in tile.arrays]
    pixels = np.concatenate([image.ravel() for image in labels])
    assert summary.classes.labelled_share == pytest.approx((pixels != UNLABELLED).mean())
    for entry in summary.classes.table:
        assert entry.pixels == (pixels == entry.index).sum()
        assert entry.samples == sum((image == entry.index).any() for image in labels)


def test_every_sample_is_read_and_lies_in_a_region(tiles, summary):
    assert summary.audited == summary.samples == len(tiles)
    assert summary.failures == []
    assert sum(region.samples for region in summary.places.regions) == len(tiles)


def test_what_is_wrong_is_found(summary):
    registration = summary.registration
    assert registration.judged == 2
    assert registration.beyond_limit == 1
    worst, other = registration.worst
    assert worst.key == "displaced"
    assert (worst.down_cells, worst.right_cells) == pytest.approx((1.5, -1.0), abs=0.3)
    assert other.key == "in-place"
    assert other.distance_cells < 0.3
    assert sum(registration.cannot_tell.values()) == 4  # t0, t3, t6 and the copy are too small
    pairs = summary.duplicates
    assert [sorted(pair) for pair in pairs.same_bytes.first] == [["copy-of-t0", "t0"]]
    assert [sorted(pair) for pair in pairs.same_picture.first] == [["copy-of-t0", "t0"]]
    assert pairs.same_key == KeyPairs(0, [])
    assert pairs.overlapping.pairs >= 1
    assert verdict(summary, "lie on Sentinel-2") == "look"
    assert verdict(summary, "samples different") == "look"
    assert verdict(summary, "whole") == "good"
    assert verdict(summary, "class seen") == "look"


def test_processes_do_not_change_a_bit(good, summary):
    dataset = ShardDataset.open(good)
    again = summarise(dataset, *audit(dataset, workers=2))
    assert json.dumps(asdict(again)) == json.dumps(asdict(summary))


def test_some_samples_are_spread():
    for total, samples in ((10, None), (10, 50), (1000, 7), (100, 33)):
        blocks = Blocks(Spread.of(total, samples))
        chosen = [number for block in blocks for number in block.samples]
        assert len(chosen) == len(set(chosen)) == min(samples or total, total)
        assert np.ptp(np.diff(chosen)) <= 1 and max(chosen) < total
        assert len(blocks) == len(list(blocks))
    with pytest.raises(InputError, match="at least 1 sample"):
        Spread.of(10, 0)


def test_the_command_on_good_shards(good, tmp_path):
    out = tmp_path / "out"
    done = skysense(
        "audit", good, "--out", out, "--workers", 2, "--write_statistics", tmp_path / "a.json"
    )
    assert done.returncode == 0, done.stderr
    assert "[12/12]" in done.stdout
    assert [sensor.key for sensor in read_sensors(tmp_path / "a.json")] == ["hr", "ms", "sar"]
    assert "worth a look: Is every class seen?" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["audit.html", "audit.json"]
    assert json.loads((out / "audit.json").read_text())["audited"] == 12
    page = Page((out / "audit.html").read_text())
    assert not page.open  # well formed
    assert not {"script", "link", "iframe"} & set(page.tags)  # nothing runs
    assert page.references
    for link in page.references:  # nothing is fetched
        assert link.startswith(("#", "data:image/png"))
    assert "displaced" in "".join(page.words)


def test_the_command_reads_some_samples(good, tmp_path):
    done = skysense("audit", good, "--out", tmp_path, "--samples", 3, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "audit.json").read_text())["audited"] == 3


def test_damaged_members_are_named_and_the_audit_goes_on(tiles, good, tmp_path):
    shards = shutil.copytree(good, tmp_path / "shards")
    damaged = {("t0", "ms"), ("t0", "labels"), ("t2", "hr"), ("t4", "ms_valid"), ("t7", "meta")}
    for key, field in damaged:
        damage(shards, key, field)
    done = skysense("audit", shards, "--out", tmp_path / "out", "--workers", 2)
    assert done.returncode == 1, done.stderr
    assert "wrong: Is every member whole?" in done.stdout
    summary = json.loads((tmp_path / "out/audit.json").read_text())
    assert {(failure["key"], failure["field"]) for failure in summary["failures"]} == damaged
    for failure in summary["failures"]:
        assert "CRC32C" in failure["reason"]
        assert re.fullmatch(r"shard-\d{6}", failure["shard"])
        assert f"{failure['shard']}.tar" in failure["reason"]
    assert summary["corrupt_samples"] == 4
    assert summary["audited"] == 12
    assert summary["verdicts"][0]["verdict"] == "wrong"
    assert "Damaged members" in (tmp_path / "out/audit.html").read_text()
    # What is whole is counted as if the others were not there.
    keys = {key for key, _ in damaged}
    whole = [tile for tile in tiles if tile.key not in keys and "sar" in tile.arrays]
    pixels = sum(int(tile.valid["sar"].sum()) for tile in whole)
    assert summary["bands"]["sar"][0]["pixels"] == pixels


def test_a_damaged_index_costs_its_samples_only(good, tmp_path):
    shards = shutil.copytree(good, tmp_path / "shards")
    index = sorted(shards.glob("shard-*.index*"))[0]
    data = bytearray(index.read_bytes())
    data[len(data) * 3 // 4] ^= 1  # the size stays, so that only reading finds it
    index.write_bytes(data)
    dataset = ShardDataset.open(shards)
    summary = summarise(dataset, *audit(dataset))
    assert summary.audited == 12
    assert 1 <= summary.corrupt_samples <= 5
    for failure in summary.failures:
        assert (failure.key, failure.field, failure.shard) == (None, "index", "shard-000000")
    assert sum(summary.counts.cells.values()) == 12 - summary.corrupt_samples


@pytest.mark.parametrize("days", [["2019-13-01"] * 5, ["2019-05-01", "2019-03-01"], ["20190301"]])
def test_wrong_dates_cost_their_sample_only(good, monkeypatch, days):
    dataset = ShardDataset.open(good)
    stored_entry = dataset.entry

    def entry_with_wrong_dates(sample):
        entry = stored_entry(sample)
        if entry.key != "t1":
            return entry
        return entry.model_copy(update={"dates": {"ms": days}})

    monkeypatch.setattr(dataset, "entry", entry_with_wrong_dates)
    tally, _ = audit(dataset)
    assert [(failure.key, failure.field) for failure in tally.failures] == [("t1", "index")]
    assert tally.samples == 12
    assert tally.corrupt == 1
    assert len(tally.rows) == 12


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
    reasons = {(failure.key, failure.field): failure.reason for failure in tally.failures}
    assert set(reasons) == {("a", "labels"), ("b", "ms")}
    assert "[200]" in reasons["a", "labels"]
    assert tally.samples == 3
    assert tally.corrupt == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("nowhere", "--out", "out"), "manifest.json"),
        (
            ("{good}", "--out", "{good}/manifest.json"),
            "expected a folder for the audit, found a file",
        ),
        (("{good}", "--out", "out", "--samples", "0"), "expected at least 1 sample, found 0"),
        (("{good}", "--out", "out", "--workers", "-1"), "expected 0 or more processes, found -1"),
    ],
)
def test_wrong_input_is_one_line(good, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    command = ["audit", *(part.format(good=good) for part in arguments)]
    with pytest.raises(SystemExit) as left:
        main(command)
    printed = capsys.readouterr().err
    assert left.value.code == 2
    assert words in printed
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1, printed
