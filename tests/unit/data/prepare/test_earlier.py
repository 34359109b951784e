"""Rejected tiles of a finished archive are tried again, and nothing else is made."""

import json
import os
import shutil
from contextlib import contextmanager

import pytest

from data.errors import InputError
from data.jobs.journal import Journal
from data.prepare import run
from data.prepare.run import prepare
from data.tiles.archive import tile_keys
from data.tiles.modalities import MODALITIES
from tests.e2e.kills import tree
from tests.unit.data.prepare.test_command import LINE, source, write_image


@pytest.fixture
def finished(tmp_path):
    """A manifest of three tiles, the archive that it makes, and the file that one of them lacks."""
    write_image(tmp_path / "a.tif")
    lines = [LINE, {**source(path="b.tif"), "key": "b"}, {**LINE, "key": "c"}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = prepare(tmp_path / "manifest.jsonl", tmp_path / "out", workers=0)
    assert [record["key"] for record in report["rejected"]] == ["b"]
    return tmp_path / "manifest.jsonl", tmp_path / "out", tmp_path / "b.tif"


def test_rejected_tiles_of_a_finished_archive_are_tried_alone(finished, monkeypatch):
    manifest, out, lacking = finished
    kept = (out / "tiles/a/hr/c/0/0/0").stat()
    write_image(lacking)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # with the journal there, the archive still in its place
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(manifest, out, retry_rejected=True, workers=0)
    with pytest.raises(InputError, match="--overwrite"):
        prepare(manifest, out, workers=0)
    assert tile_keys(out) == ["a", "c"]
    report = prepare(manifest, out, retry_rejected=True, workers=0)
    assert not report["rejected"] and tile_keys(out) == ["a", "b", "c"]
    assert (out / "tiles/a/hr/c/0/0/0").stat() == kept  # not made again
    prepare(manifest, out.with_name("new"), workers=0)
    assert tree(out) == tree(out.with_name("new"))
    names = {path.name for path in manifest.parent.iterdir()}
    assert names == {"a.tif", "b.tif", "manifest.jsonl", "out", "new"}


def test_a_killed_retry_is_continued_by_either_command(finished, monkeypatch):
    manifest, out, lacking = finished
    write_image(lacking)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "on_workers", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(manifest, out, retry_rejected=True, workers=0)
    assert not out.exists()
    assert not prepare(manifest, out, workers=0)["rejected"]
    assert tile_keys(out) == ["a", "b", "c"]


CORRECTED = [
    {**LINE, "key": "new"},
    {**source(date_accuracy="day"), "key": "c"},  # other words for the same
    {**LINE, "key": "b", "attribution": "somebody"},  # has its file now
    {**LINE, "key": "a", "split": "test"},
]


def write_lines(manifest, lines):
    """Write a manifest of these lines."""
    manifest.write_text("\n".join(map(json.dumps, lines)))


@contextmanager
def killed_at(where, name):
    """Inside, a call of a function is the moment of a kill."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(KeyboardInterrupt):
            yield


def check_undisturbed(manifest, out):
    """Check that an archive is as if its manifest had never been another one."""
    prepare(manifest, out.with_name("undisturbed"), workers=0)
    assert tree(out) == tree(out.with_name("undisturbed"))
    names = {"a.tif", "manifest.jsonl", "out", "undisturbed"}
    assert {path.name for path in manifest.parent.iterdir()} - {"b.tif"} == names
    shutil.rmtree(out.with_name("undisturbed"))


def made_lines(said):
    """The keys of the tiles that a run has worked on."""
    return [line.split()[1].rstrip(":") for line in said if line.startswith("[")]


def test_a_corrected_manifest_makes_what_was_rejected_changed_or_new(finished):
    manifest, out, _ = finished
    kept = (out / "tiles/c/hr/c/0/0/0").stat()
    write_lines(manifest, CORRECTED)
    said = []
    report = prepare(manifest, out, retry_rejected=True, workers=0, say=said.append)
    assert not report["rejected"] and made_lines(said) == ["new", "b", "a"]
    assert "1 of 4 tiles are done" in said[0]
    assert (out / "tiles/c/hr/c/0/0/0").stat() == kept
    check_undisturbed(manifest, out)


KILLS = [(os, "replace"), (os, "rename"), (run, "_claim"), (run, "earlier_work")]
KILLS += [(run, "on_workers"), (Journal, "append"), (run, "publish_folder"), (run, "_tidy")]


@pytest.mark.parametrize(("where", "name"), KILLS, ids=[name for _, name in KILLS])
def test_a_kill_at_any_step_of_it_is_continued(finished, where, name):
    manifest, out, _ = finished
    before = tree(out)
    write_lines(manifest, CORRECTED)
    with killed_at(where, name):
        prepare(manifest, out, retry_rejected=True, workers=0)
    if name in ("replace", "rename"):
        assert tree(out) == before
    prepare(manifest, out, retry_rejected=True, workers=0)
    check_undisturbed(manifest, out)


@pytest.mark.parametrize(("where", "name"), KILLS, ids=[name for _, name in KILLS])
def test_a_kill_and_then_the_first_manifest_again(finished, where, name):
    manifest, out, _ = finished
    first = manifest.read_text()
    write_lines(manifest, CORRECTED)
    with killed_at(where, name):
        prepare(manifest, out, retry_rejected=True, workers=0)
    with killed_at(where, name):
        prepare(manifest, out, retry_rejected=True, workers=0)
    manifest.write_text("\n".join([first, json.dumps(CORRECTED[0])]))
    prepare(manifest, out, retry_rejected=True, workers=0)
    check_undisturbed(manifest, out)


def test_a_retry_of_a_retry(finished):
    manifest, out, _ = finished
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for path in ("not there either.tif", "a.tif"):
        lines[1] = {**source(path=path), "key": "b"}
        write_lines(manifest, lines)
        said = []
        prepare(manifest, out, retry_rejected=True, workers=0, say=said.append)
        assert made_lines(said) == ["b"]
        check_undisturbed(manifest, out)
    assert tile_keys(out) == ["a", "b", "c"]


def test_tiles_of_scenes_and_folders_stay_too(finished):
    manifest, out, _ = finished
    shutil.rmtree(out)
    scene = {**LINE, "key": "s", "scene": {"cells": 2}}
    folder = {**source(path="a*.tif"), "key": "f-{name}", "reader": "folder"}
    broken = {**source(path="gone.tif"), "key": "b"}
    write_lines(manifest, [scene, broken, folder])
    prepare(manifest, out, workers=1)
    folder["sources"][0]["path"] = "*.tif"
    write_lines(manifest, [folder, {**LINE, "key": "b"}, scene])
    said = []
    report = prepare(manifest, out, retry_rejected=True, workers=1, say=said.append)
    assert made_lines(said) == ["b"] and report["groups"]["s"]["made"] == 4
    check_undisturbed(manifest, out)


def test_an_unfinished_run_goes_on_with_a_corrected_manifest(finished):
    manifest, out, _ = finished
    shutil.rmtree(out)
    with pytest.raises(InputError, match="correct their files or lines"):
        prepare(manifest, out, workers=0, max_rejected=0)
    before = tree(out.with_name("out.partial"))
    write_lines(manifest, [*CORRECTED[:3], LINE])
    with pytest.raises(InputError, match="another manifest.*--retry_rejected.*--restart"):
        prepare(manifest, out, workers=0)
    assert tree(out.with_name("out.partial")) == before
    with killed_at(os, "replace"):
        prepare(manifest, out, workers=0, retry_rejected=True)
    with killed_at(run, "on_workers"):
        prepare(manifest, out, workers=0, retry_rejected=True)
    said = []
    prepare(manifest, out, workers=0, say=said.append)
    assert "0 of 4 tiles are done, 1 will be looked at" in said[0]
    check_undisturbed(manifest, out)


def test_tiles_that_a_power_cut_may_have_spoilt_are_still_looked_at(finished):
    manifest, out, _ = finished
    shutil.rmtree(out)
    with pytest.raises(InputError):
        prepare(manifest, out, workers=0, max_rejected=0)
    (out.with_name("out.partial") / "tiles/a/hr/c/0/0/0").write_bytes(b"")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[1] = {**LINE, "key": "b"}
    write_lines(manifest, lines)
    said = []
    prepare(manifest, out, workers=0, retry_rejected=True, say=said.append)
    assert "0 of 3 tiles are done, 1 will be looked at" in said[0]
    check_undisturbed(manifest, out)


def test_tiles_whose_lines_are_gone_are_named_and_kept(finished):
    manifest, out, _ = finished
    before = tree(out)
    first = manifest.read_text().splitlines()
    manifest.write_text("\n".join(first[1:]))
    with pytest.raises(InputError, match=r"out: has 1 tiles .* any more: a; put .*--overwrite"):
        prepare(manifest, out, retry_rejected=True, workers=0)
    assert tree(out) == before and not list(out.parent.glob("*.partial*"))
    manifest.write_text("\n".join([first[0], first[2]]))  # of a rejected tile nothing is lost
    prepare(manifest, out, retry_rejected=True, workers=0)
    check_undisturbed(manifest, out)


def test_tiles_of_an_unfinished_run_whose_lines_are_gone_are_kept_too(finished):
    manifest, out, _ = finished
    shutil.rmtree(out)
    first = manifest.read_text()
    with pytest.raises(InputError):
        prepare(manifest, out, workers=0, max_rejected=0)
    before = tree(out.parent)
    manifest.write_text("\n".join(first.splitlines()[1:]))
    with pytest.raises(InputError, match=r"partial: has 1 tiles .* any more: a; put .*--restart"):
        prepare(manifest, out, retry_rejected=True, workers=0)
    manifest.write_text(first)
    assert tree(out.parent) == before
    prepare(manifest, out, workers=0)
    assert tile_keys(out) == ["a", "c"]


def test_an_archive_of_an_earlier_version_is_tried_with_its_own_manifest_only(finished):
    manifest, out, lacking = finished
    report = json.loads((out / "report.json").read_text())
    for record in report["tiles"]:
        del record["entry"]
    (out / "report.json").write_text(json.dumps(report))
    before = tree(out)
    first = manifest.read_text()
    manifest.write_text(first.replace("2020-", "2021-"))
    with pytest.raises(InputError, match="was made with another manifest") as caught:
        prepare(manifest, out, retry_rejected=True, workers=0)
    assert "\n" not in str(caught.value)
    assert tree(out) == before and not list(out.parent.glob("*.partial*"))
    manifest.write_text(first)
    write_image(lacking)
    said = []
    prepare(manifest, out, retry_rejected=True, workers=0, say=said.append)
    assert made_lines(said) == ["b"]
    check_undisturbed(manifest, out)
    write_lines(manifest, CORRECTED)  # now it is known what they are made of
    said.clear()
    prepare(manifest, out, retry_rejected=True, workers=0, say=said.append)
    assert made_lines(said) == ["new", "b", "a"]


def test_a_change_of_all_tiles_deletes_none(finished):
    manifest, out, _ = finished
    before = tree(out)
    manifest.write_text(manifest.read_text().replace("a.tif", "mistyped.tif"))
    with pytest.raises(InputError, match="all of its 2 tiles have changed .* pass --overwrite"):
        prepare(manifest, out, retry_rejected=True, workers=0)
    assert tree(out) == before and not list(out.parent.glob("*.partial*"))


def test_other_sensors_make_all_tiles_others(finished):
    manifest, out, _ = finished
    before = tree(out)
    sensors = manifest.with_name("sensors.json")
    sensor = {"key": "nir", "bands": ["NIR"], "gsd": 10, "unit": "K", "dtype": "uint8"}
    sensors.write_text(json.dumps({"sensors": [{**sensor, "nodata": 0}]}))
    with MODALITIES.apart(), pytest.raises(InputError, match="other sensors or classes"):
        prepare(manifest, out, sensors=sensors, retry_rejected=True, workers=0)
    assert tree(out) == before and not list(out.parent.glob("*.partial*"))
