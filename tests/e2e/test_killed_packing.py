"""A packing run that is killed again and again ends with the bytes of an undisturbed one, and
nothing beside them."""

import os

import numpy as np
import pytest

from data.shards.dataset import ShardDataset
from data.tiles.archive import create_archive, write_tile
from data.tiles.tile import Tile
from tests.e2e.kills import (
    finish,
    kill_again_and_again,
    kill_at_the_end,
    kill_group,
    kill_workers,
    start,
    tree,
    wait_for,
)

TILES = 300
KILLS = [6, pytest.param(20, marks=pytest.mark.long)]
SHARDS = TILES // 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Many small tiles, all different."""
    folder, rng = (
        create_archive(tmp_path_factory.mktemp("tiles") / "archive"),
        np.random.default_rng(0),
    )
    for number in range(TILES):
        tile = Tile(
            f"t-{number}",
            2,
            "EPSG:32632",
            (10.0, 0.0, 500_000.0 + 100 * number, 0.0, -10.0, 5_700_000.0),
            9.0 + number / 700,
            51.45,
            licence=f"licence {number % 3}",
            attribution="nobody",
            source="made",
        )
        tile.arrays["ms"] = rng.integers(0, 9999, (4, 10, 2, 2), np.uint16)
        tile.valid["ms"] = np.ones((4, 2, 2), bool)
        tile.dates["ms"] = ["2020-01-01", "2020-03-01", "2020-05-01", "2020-07-01"]
        write_tile(folder, tile)
    return folder


def command(archive, out, *extra):
    return ["shards", "--archive", archive, "--out", out, "--samples_per_shard", 2, *extra]


def published(out):
    """Shards whose index, the second of their files, is there."""
    return len(list(out.glob("*.index.jsonl")))


@pytest.fixture(scope="module")
def peaceful(archive, tmp_path_factory):
    """What an undisturbed run with one worker makes."""
    out = tmp_path_factory.mktemp("peaceful") / "shards"
    finish(start(*command(archive, out, "--workers", 1)))
    assert len(ShardDataset.open(out)) == TILES and published(out) == SHARDS
    return tree(out)


@pytest.mark.parametrize("kills", KILLS)
def test_kills_and_some_at_the_end_change_nothing(archive, peaceful, tmp_path, kills):
    out = tmp_path / "shards"
    line = command(archive, out, "--workers", 2)
    seen = kill_again_and_again(line, kills, 1, lambda: published(out), step=6)
    assert 0 < seen[1] < seen[-1] < SHARDS and not (out / "manifest.json").exists()

    def done():
        return (out / "manifest.json").exists() and not (out / "shards.partial.jsonl").exists()

    last = (f"[{SHARDS}/{SHARDS}]", f"{SHARDS} of {SHARDS} shards are done")
    assert kill_at_the_end(line, 1 + kills // 5, 2, last, done)
    if not done():
        finish(start(*line))
    assert tree(out) == peaceful


def test_dead_workers_cost_nothing(archive, peaceful, tmp_path):
    out = tmp_path / "shards"
    process = start(*command(archive, out, "--workers", 2))
    kill_workers(process, lambda: published(out), (5, 55, 105))
    finish(process)
    assert tree(out) == peaceful


def test_damaged_shards_are_written_again_and_other_plans_refused(archive, peaceful, tmp_path):
    out = tmp_path / "shards"
    line = command(archive, out, "--workers", 1)
    process = start(*line)
    wait_for(lambda: published(out) >= 6, process)
    kill_group(process)
    shards = sorted(out.glob("*.index.jsonl"))
    shards[0].write_bytes(b"x" + shards[0].read_bytes()[1:])
    os.truncate(out / shards[1].name.replace("index.jsonl", "tar"), 1000)
    shards[2].unlink()
    before = tree(out)
    _, stderr = finish(start(*line, "--quality", 90), status=2)
    assert len(stderr.splitlines()) == 1 and "--restart" in stderr and tree(out) == before
    finish(start(*line))
    assert tree(out) == peaceful
    _, stderr = finish(start(*line), status=2)
    assert len(stderr.splitlines()) == 1 and "--overwrite" in stderr and tree(out) == peaceful
    process = start(*line, "--seed", 1, "--overwrite")
    wait_for(lambda: 0 < published(out) < SHARDS, process)
    kill_group(process)
    finish(start(*line, "--restart"))
    assert tree(out) == peaceful
