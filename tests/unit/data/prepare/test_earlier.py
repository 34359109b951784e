"""Rejected tiles of a finished archive are tried again, and nothing else is made."""

import json
import os

import pytest

from data.errors import InputError
from data.prepare import run
from data.prepare.run import prepare
from data.tiles.archive import tile_keys
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


def test_rejected_tiles_of_another_manifest_are_not_tried(finished):
    manifest, out, lacking = finished
    write_image(lacking)
    before = tree(out)
    manifest.write_text(manifest.read_text().replace("2020-", "2021-"))
    with pytest.raises(InputError, match="was made with another manifest"):
        prepare(manifest, out, retry_rejected=True, workers=0)
    assert tree(out) == before and not list(out.parent.glob("*.partial*"))
