"""Bad input through the real command line: one clear line, exit 2, nothing lost and nothing left
behind."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from data.errors import InputError
from data.prepare.run import prepare
from data.tiles.archive import read_tile, tile_keys
from tests.e2e.kills import tree
from tests.environment import environment
from tests.paths import PATIENCE

IMAGE = {
    "reader": "geotiff_image",
    "path": "a.tif",
    "modality": "hr",
    "bands": ["R", "G", "B"],
    "date": "2020-05-01",
}
LINE = {"key": "a", "licence": "CC0-1.0", "attribution": "nobody", "sources": [IMAGE]}


def write_image(path: Path, bands=3, crs="EPSG:32632", side=128, **options):
    profile = {
        "driver": "GTiff",
        "width": side,
        "height": side,
        "count": bands,
        "dtype": "uint8",
        "crs": crs,
        "transform": Affine(0.3125, 0, 500_000, 0, -0.3125, 5_700_000),
        **options,
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.full((bands, side, side), 77, profile["dtype"]))


def command(folder: Path, *lines, out="out", extra=()):
    """Run skysense prepare over manifest lines (objects or raw text)."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "manifest.jsonl").write_text(text)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "launch",
            "prepare",
            "--manifest",
            folder / "manifest.jsonl",
            "--out",
            folder / out,
            *extra,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=PATIENCE,
    )


def source(**changes):
    return {**LINE, "sources": [{**IMAGE, **changes}]}


def test_a_good_manifest_makes_an_archive_and_only_overwrite_replaces_it(tmp_path):
    write_image(tmp_path / "a.tif")
    done = command(tmp_path, LINE)
    assert done.returncode == 0, done.stderr
    assert "[1/1] a: 4 x 4 cells, frames hr 1, no labels" in done.stdout
    tile = read_tile(tmp_path / "out", "a")
    assert (tile.arrays["hr"] == 77).all() and tile.dates == {"hr": ["2020-05-01"]}
    assert json.loads((tmp_path / "out/report.json").read_text())["tiles"][0]["key"] == "a"
    again = command(tmp_path, {**LINE, "key": "b"})
    assert (
        again.returncode == 2
        and "--overwrite" in again.stderr
        and tile_keys(tmp_path / "out") == ["a"]
    )
    broken = command(
        tmp_path,
        {**LINE, "key": "b"},
        {**source(path="gone.tif"), "key": "c"},
        extra=["--overwrite", "--max_rejected", "0"],
    )
    assert broken.returncode == 2 and tile_keys(tmp_path / "out") == [
        "a"
    ]  # the old one stays until the new is whole
    assert (
        command(tmp_path, {**LINE, "key": "b"}, extra=["--overwrite", "--restart"]).returncode == 0
    )
    assert tile_keys(tmp_path / "out") == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "manifest.jsonl", "out"]


@pytest.fixture
def bad_files(tmp_path):
    """A folder with one good image and several of no use."""
    write_image(tmp_path / "a.tif")
    write_image(tmp_path / "nowhere.tif", crs=None)
    write_image(tmp_path / "deep.tif", dtype="uint16")
    write_image(tmp_path / "flat.tif", side=30)
    turned = Affine.translation(500_000, 5_700_000) @ Affine.rotation(30) @ Affine.scale(0.3, -0.3)
    write_image(tmp_path / "turned.tif", transform=turned)
    (tmp_path / "text.tif").write_text("this is not a picture")
    (tmp_path / "b.h5").write_text("nor is this")
    return tmp_path


@pytest.mark.parametrize(
    "line, words",
    [
        (source(pathh="a.tif"), ["sources[0]", "unknown key 'pathh'", "did you mean 'path'"]),
        (source(path="gone.tif"), ["no file", "gone.tif"]),
        (source(bands=["NIR", "R", "G", "B"]), ["a.tif", "no band 'NIR'", "3 bands"]),
        (source(path="nowhere.tif"), ["nowhere.tif", "CRS", "georeference"]),
    ],
    ids=["unknown key", "missing file", "band count", "no CRS"],
)
def test_bad_input_through_the_command(bad_files, line, words):
    before = sorted([p.name for p in bad_files.iterdir()] + ["manifest.jsonl"])
    done = command(bad_files, line)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert sorted(p.name for p in bad_files.iterdir()) == before  # nothing half-written


@pytest.mark.parametrize(
    "line, words",
    [
        ({**LINE, "licence_": "x"}, ["unknown key 'licence_'", "did you mean 'licence'"]),
        (
            source(reader="geotif_image"),
            ["'geotif_image' is unknown", "did you mean 'geotiff_image'"],
        ),
        (source(bands=["NIR", "R", "G"]), ["lack ['B']"]),
        (source(path="deep.tif"), ["deep.tif", "expected hr as uint8", "found uint16"]),
        (source(path="text.tif"), ["text.tif", "expected a raster file"]),
        (source(path="flat.tif"), ["'a'", "flat.tif", "not even one cell"]),
        (source(path="turned.tif"), ["turned.tif", "along the axes", "warp it"]),
        (
            {**LINE, "sources": [{"reader": "hdf5_series", "path": "b.h5"}]},
            ["b.h5", "expected an HDF5 file"],
        ),
        (source(date=7), ["date: expected text, found 7"]),
        (source(date="May 1st"), ["'May 1st'", "YYYY-MM-DD"]),
        (source(date="2020-5-1"), ["'2020-5-1'", "YYYY-MM-DD"]),
        (source(date_accuracy="hour"), ["'hour'", "expected one of"]),
        (source(modality="lidar"), ["'lidar'", "expected one of"]),
        (source(bands=[]), ["bands: expected a list of bands", "found []"]),
        ({**LINE, "sources": []}, ["sources: expected at least one item, found []"]),
        ({**LINE, "key": "a.b"}, ["key: expected letters, digits", "found 'a.b'"]),
        ({key: LINE[key] for key in ("key", "sources", "licence")}, ["missing ['attribution']"]),
        ([1, 2], ["expected a JSON object, found list"]),
        ('{"key": "a",', ["manifest.jsonl:1", "not valid JSON"]),
        ("", ["empty manifest"]),
    ],
    ids=lambda value: (
        value[0][:30] if isinstance(value, list) and isinstance(value[0], str) else ""
    ),
)
def test_other_bad_input(bad_files, line, words):
    (bad_files / "manifest.jsonl").write_text(line if isinstance(line, str) else json.dumps(line))
    before = sorted(p.name for p in bad_files.iterdir())
    with pytest.raises(InputError) as caught:
        prepare(bad_files / "manifest.jsonl", bad_files / "out", workers=0)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value) and sorted(p.name for p in bad_files.iterdir()) == before


def test_a_damaged_file_costs_its_tile_alone(tmp_path):
    write_image(tmp_path / "a.tif")
    write_image(tmp_path / "torn.tif", side=512)
    whole = (tmp_path / "torn.tif").read_bytes()
    (tmp_path / "torn.tif").write_bytes(
        whole[: len(whole) // 2]
    )  # the header is sound, the pixels are not there
    done = command(
        tmp_path,
        {**source(path="torn.tif"), "key": "b"},
        LINE,
        {**source(path="gone.tif"), "key": "c"},
    )
    assert done.returncode == 3 and done.stderr == "" and tile_keys(tmp_path / "out") == ["a"]
    assert (
        "b: tile rejected: " in done.stdout
        and "torn.tif" in done.stdout
        and "gone.tif" in done.stdout
    )
    assert "1 tiles, 2 rejected" in done.stdout
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [record["key"] for record in report["rejected"]] == ["b", "c"]
    assert "damaged" in report["rejected"][0]["notes"][0]


def test_too_many_rejections_stop_it_and_corrected_sources_continue_it(tmp_path):
    write_image(tmp_path / "a.tif")
    lines = [LINE, *({**source(path=f"{key}.tif"), "key": key} for key in "bcd")]
    limit = ["--max_rejected", "1", "--workers", "1"]
    done = command(tmp_path, *lines, extra=limit)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert (
        "2 tiles rejected, --max_rejected allows 1: b, c; " in done.stderr
        and "--retry_rejected" in done.stderr
    )
    write_image(tmp_path / "c.tif")
    write_image(tmp_path / "d.tif")
    done = command(tmp_path, *lines, extra=limit)
    assert (
        done.returncode == 2 and "rejected, --max_rejected" in done.stderr
    )  # they were not tried again
    done = command(tmp_path, *lines, extra=[*limit, "--retry_rejected"])
    assert done.returncode == 3 and "0 of 4 tiles are done, 1 will be looked at" in done.stdout
    assert tile_keys(tmp_path / "out") == list("acd")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [record["key"] for record in report["rejected"]] == ["b"]


def test_a_staging_folder_without_its_journal_is_not_guessed_at(tmp_path):
    write_image(tmp_path / "a.tif")
    lines = [LINE, {**source(path="b.tif"), "key": "b"}]
    assert (
        command(tmp_path, *lines, extra=["--max_rejected", "0", "--workers", "1"]).returncode == 2
    )
    (tmp_path / "out.partial.jsonl").unlink()
    for _ in range(2):
        done = command(tmp_path, *lines)
        assert (
            done.returncode == 2
            and "out.partial.jsonl" in done.stderr
            and "--restart" in done.stderr
        )
    assert tile_keys(tmp_path / "out.partial") == ["a"]
    assert command(tmp_path, *lines, extra=["--restart"]).returncode == 3
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial/thesis.txt").write_text("years of work")
    for extra in (["--restart"], [], ["--restart"]):
        done = command(tmp_path, *lines, out="new", extra=extra)
        assert (
            done.returncode == 2
            and (tmp_path / "new.partial/thesis.txt").read_text() == "years of work"
        )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tile: (tile / "zarr.json").write_bytes(
            b""
        ),  # what a power cut leaves of files that were just written
        lambda tile: (tile / "hr/c/0/0/0").write_bytes(b""),
        lambda tile: (tile / "hr/c/0/0/0").unlink(),
        lambda tile: (tile / "hr_valid/zarr.json").unlink(),
        lambda tile: shutil.rmtree(tile),
    ],
)
def test_tiles_that_a_power_cut_spoilt_are_made_again(tmp_path, spoil):
    write_image(tmp_path / "a.tif")
    lines = [LINE, {**LINE, "key": "b"}, {**source(path="c.tif"), "key": "c"}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match="max_rejected"):
        prepare(tmp_path / "manifest.jsonl", tmp_path / "out", workers=0, max_rejected=0)
    spoil(tmp_path / "out.partial/tiles/a")
    prepare(tmp_path / "manifest.jsonl", tmp_path / "out", workers=0)
    prepare(tmp_path / "manifest.jsonl", tmp_path / "new", workers=0)
    assert tree(tmp_path / "out") == tree(tmp_path / "new")


@pytest.mark.parametrize("call", range(1, 4))
def test_a_kill_at_any_rename_or_deletion_of_the_end_is_continued(tmp_path, monkeypatch, call):
    """Calls: the old archive steps aside; the new one takes its place; the old one is deleted."""
    write_image(tmp_path / "a.tif")
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**LINE, "key": "old"}))
    prepare(tmp_path / "manifest.jsonl", tmp_path / "out", workers=0)
    (tmp_path / "manifest.jsonl").write_text(json.dumps(LINE))
    calls = []

    def kill_before(function):
        def called(path, *more, **options):
            if (
                Path(path).parent == tmp_path
                and threading.current_thread() is threading.main_thread()
            ):  # not zarr's
                calls.append(path)
                if len(calls) == call:
                    raise KeyboardInterrupt
            return function(path, *more, **options)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kill_before(os.rename))
        patch.setattr(shutil, "rmtree", kill_before(shutil.rmtree))
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path / "manifest.jsonl", tmp_path / "out", overwrite=True, workers=0)
    assert len(calls) == call
    if call == 2:
        assert not (tmp_path / "out").exists()
    else:
        assert tile_keys(tmp_path / "out") == {1: ["old"], 3: ["a"]}[call]
    report = prepare(tmp_path / "manifest.jsonl", tmp_path / "out", overwrite=True, workers=0)
    assert [record["key"] for record in report["tiles"]] == tile_keys(tmp_path / "out") == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "manifest.jsonl", "out"]
    prepare(tmp_path / "manifest.jsonl", tmp_path / "new", workers=0)
    assert tree(tmp_path / "out") == tree(tmp_path / "new")
    with pytest.raises(InputError, match="--overwrite"):
        prepare(tmp_path / "manifest.jsonl", tmp_path / "out", workers=0)


def test_folders_of_others_and_repeated_keys(tmp_path):
    write_image(tmp_path / "a.tif")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("years of work")
    done = command(tmp_path, LINE, extra=["--overwrite"])
    assert done.returncode == 2 and "not a tile archive" in done.stderr
    assert (tmp_path / "out/thesis.txt").read_text() == "years of work"
    done = command(tmp_path, LINE, LINE, out="new")
    assert done.returncode == 2 and "stands on line 1 already" in done.stderr


def test_an_empty_tile_is_rejected_with_a_reason(tmp_path):
    write_image(tmp_path / "a.tif")
    write_image(tmp_path / "empty.tif", nodata=77)
    done = command(tmp_path, LINE, {**source(path="empty.tif"), "key": "b"})
    assert done.returncode == 3
    assert "b: tile rejected: no usable modality left" in done.stdout and tile_keys(
        tmp_path / "out"
    ) == ["a"]
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [record["key"] for record in report["rejected"]] == ["b"]
