"""A preparation that is killed again and again ends with the bytes of an undisturbed one, and
nothing beside them."""

import json
import os
import signal

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.e2e.kills import (
    children,
    finish,
    kill_again_and_again,
    kill_at_the_end,
    kill_group,
    kill_workers,
    start,
    stop_in_a_task,
    tree,
    wait_for,
)
from tests.paths import PATIENCE

TILES = 200
KILLS = [6, pytest.param(20, marks=pytest.mark.long)]
UNCHANGED = 40  # lines that a correction of the manifest leaves
STEP = 6  # tiles at most between a start and a kill
SOME_REJECTED = 3  # exit status
BROKEN = {
    7: "not a picture",
    31: "cut short",
    64: "nothing valid in it",
}  # tile -> what is wrong with its image


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A manifest of small images, all different, three of them of no use."""
    folder, lines = tmp_path_factory.mktemp("sources"), []
    rng = np.random.default_rng(0)
    for number in range(TILES):
        path = folder / f"{number}.tif"
        profile = {
            "driver": "GTiff",
            "width": 160,
            "height": 160,
            "count": 3,
            "dtype": "uint8",
            "crs": "EPSG:32632",
            "transform": Affine(0.3125, 0, 500_000 + 100 * number, 0, -0.3125, 5_700_000),
        }
        image = rng.integers(0, 256, (3, 160, 160), np.uint8)
        if BROKEN.get(number) == "nothing valid in it":
            profile["nodata"], image = 9, np.full_like(image, 9)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(image)
        if BROKEN.get(number) == "not a picture":
            path.write_text("words")
        if BROKEN.get(number) == "cut short":
            path.write_bytes(path.read_bytes()[:40_000])
        source = {
            "reader": "geotiff_image",
            "path": path.name,
            "modality": "hr",
            "bands": ["R", "G", "B"],
            "date": "2020-05-01",
        }
        lines.append(
            {
                "key": f"t-{number}",
                "licence": "CC0-1.0",
                "attribution": "nobody",
                "sources": [source],
            }
        )
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def command(manifest, out, *extra):
    return ["prepare", "--manifest", manifest, "--out", out, *extra]


def published(out):
    """Tiles that are whole in the unfinished archive, whose keys begin with ``t-``."""
    tiles = out.with_name(out.name + ".partial") / "tiles"
    return len(list(tiles.glob("t-*")))  # zarr has a file of its own there, under several names


def half_written(out):
    """Tiles of the unfinished archive that are not whole."""
    return list(out.with_name(out.name + ".partial").glob("tiles/.partial-*"))


@pytest.fixture(scope="module")
def peaceful(manifest, tmp_path_factory):
    """What an undisturbed run with one worker makes."""
    out = tmp_path_factory.mktemp("peaceful") / "archive"
    finish(start(*command(manifest, out, "--workers", 1)), SOME_REJECTED)
    report = json.loads((out / "report.json").read_text())
    assert [record["key"] for record in report["tiles"]] == [
        f"t-{i}" for i in range(TILES) if i not in BROKEN
    ]
    assert [record["key"] for record in report["rejected"]] == [f"t-{i}" for i in sorted(BROKEN)]
    return tree(out)


@pytest.mark.parametrize("kills", KILLS)
def test_kills_and_some_at_the_end_change_nothing(manifest, peaceful, tmp_path, kills):
    out = tmp_path / "archive"
    line = command(manifest, out, "--workers", 2)
    seen = kill_again_and_again(line, kills, 1, lambda: published(out), step=STEP)
    assert 0 < seen[1] < seen[-1] < TILES - len(BROKEN)  # work was kept, and some was left
    last = (f"[{TILES}/{TILES}]", f"{TILES} of {TILES} tiles are done")
    assert kill_at_the_end(line, 1 + kills // 5, 2, last, out.exists)
    if not out.exists() or len(os.listdir(tmp_path)) > 1:  # else a kill came just after the end
        finish(start(*line), SOME_REJECTED)
    assert tree(out) == peaceful
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("kills", KILLS)
def test_kills_while_a_corrected_manifest_is_retried_change_nothing(manifest, tmp_path, kills):
    out, journal = tmp_path / "archive", tmp_path / "archive.partial.jsonl"
    finish(start(*command(manifest, out, "--workers", 2)), SOME_REJECTED)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for number in BROKEN:
        lines[number]["sources"][0]["path"] = "0.tif"
    for line in lines[UNCHANGED:]:
        line["attribution"] = "somebody"
    lines.append({**lines[0], "key": "new"})
    corrected = manifest.with_name("corrected.jsonl")
    corrected.write_text("\n".join(map(json.dumps, reversed(lines))) + "\n")
    kept = UNCHANGED - sum(number < UNCHANGED for number in BROKEN)

    def made():
        """Tiles that the journal has beside those that stayed, a header and two marks."""
        if not journal.exists():
            return 0
        return max(0, len(journal.read_bytes().splitlines()) - kept - 3)

    line = command(corrected, out, "--workers", 2, "--retry_rejected")
    seen = kill_again_and_again(line, kills, 3, made, step=STEP)
    assert 0 < seen[1] < seen[-1] < TILES - kept
    stdout, _ = finish(start(*line))
    assert f"{TILES + 1} tiles, 0 rejected" in stdout
    finish(start(*command(corrected, tmp_path / "undisturbed", "--workers", 2)))
    assert tree(out) == tree(tmp_path / "undisturbed")
    assert sorted(os.listdir(tmp_path)) == ["archive", "undisturbed"]


def test_dead_workers_cost_nothing(manifest, peaceful, tmp_path):
    out = tmp_path / "archive"
    process = start(*command(manifest, out, "--workers", 2))
    kill_workers(process, lambda: published(out), (5, 55, 105))
    finish(process, SOME_REJECTED)
    assert tree(out) == peaceful


def test_a_tile_that_kills_its_process_twice_is_rejected(manifest, tmp_path):
    small = json.loads(manifest.read_text().splitlines()[0])
    image = np.random.default_rng(0).integers(
        0, 256, (3, 4096, 4096), np.uint8
    )  # takes long to compress
    with rasterio.open(
        manifest.with_name("big.tif"),
        "w",
        driver="GTiff",
        width=4096,
        height=4096,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=Affine(0.3125, 0, 500_000, 0, -0.3125, 5_700_000),
    ) as dataset:
        dataset.write(image)
    big = {**small, "key": "big", "sources": [{**small["sources"][0], "path": "big.tif"}]}
    path = manifest.with_name("poison.jsonl")
    path.write_text(json.dumps(big) + "\n" + json.dumps(small))
    process = start(*command(path, tmp_path / "archive", "--workers", 1))
    for tries in (1, 2):  # each leaves half a tile
        wait_for(lambda: len(half_written(tmp_path / "archive")) == tries, process)  # noqa: B023
        os.kill(children(process)[0], signal.SIGKILL)
    stdout, stderr = finish(process, SOME_REJECTED)
    assert (
        "big: tile rejected: two processes that made it were ended by SIGKILL" in stdout
        and stderr == ""
    )
    report = json.loads((tmp_path / "archive/report.json").read_text())
    assert [record["key"] for record in report["rejected"]] == ["big"]
    assert sorted(os.listdir(tmp_path / "archive/tiles")) == ["t-0", "zarr.json"]


def test_a_worker_that_stands_still_does_not_outlive_the_command(manifest, peaceful, tmp_path):
    out = tmp_path / "archive"
    line = command(manifest, out, "--workers", 2)
    process = start(*line)
    wait_for(lambda: published(out) >= 20, process)
    stop_in_a_task(children(process)[0], out.with_name(out.name + ".partial.jsonl"))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)  # its pipes end when the workers do
    finish(start(*line), SOME_REJECTED)
    assert tree(out) == peaceful


@pytest.mark.parametrize(
    "number, kill, status",
    [(signal.SIGINT, os.killpg, 130), (signal.SIGTERM, os.kill, 75)],
    ids=["Ctrl-C in a terminal", "SIGTERM to the main process"],
)
def test_signals_end_it_with_one_line(manifest, peaceful, tmp_path, number, kill, status):
    out = tmp_path / "archive"
    line = command(manifest, out, "--workers", 2)
    process = start(*line)
    wait_for(lambda: published(out) >= 20, process)
    kill(process.pid, number)
    _, stderr = finish(process, status)
    assert stderr == "stopped: what is done is kept, the same command continues\n"
    assert not out.exists() and 20 <= published(out) < TILES - len(BROKEN)
    finish(start(*line), SOME_REJECTED)
    assert tree(out) == peaceful


def test_two_runs_and_other_manifests_are_kept_apart(manifest, peaceful, tmp_path):
    out, other = tmp_path / "archive", manifest.with_name("other.jsonl")
    other.write_text("\n".join(manifest.read_text().splitlines()[:3]) + "\n")
    first = start(*command(manifest, out, "--workers", 1))
    wait_for(lambda: published(out), first)
    os.kill(first.pid, signal.SIGSTOP)
    _, stderr = finish(start(*command(manifest, out)), status=2)
    assert len(stderr.splitlines()) == 1 and "is at work here" in stderr
    os.kill(first.pid, signal.SIGCONT)
    kill_group(first)
    done = published(out)
    _, stderr = finish(start(*command(other, out)), status=2)
    assert len(stderr.splitlines()) == 1 and "--restart" in stderr and published(out) == done > 0
    finish(start(*command(other, out, "--restart")))
    assert {name for name in os.listdir(out / "tiles") if name.startswith("t-")} == {
        "t-0",
        "t-1",
        "t-2",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive"]
