"""Packing an archive: equal to the writer itself, and honest about tiles that changed."""

import numpy as np
import pytest
import zarr

from data.errors import InputError
from data.shards.encode import ShardOptions
from data.shards.pack import pack
from data.shards.writer import write_shards
from data.tiles.archive import create_archive, read_tile, tile_keys, write_tile
from tests.unit.data.tiles.test_archive import make_tile

OPTIONS = ShardOptions(samples_per_shard=2)


@pytest.fixture
def archive(tmp_path):
    folder = create_archive(tmp_path / "archive")
    for key in "abcde":
        write_tile(folder, make_tile(key))
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [0, 2])
def test_it_writes_what_the_writer_writes(archive, tmp_path, workers):
    said = []
    manifest = pack(archive, tmp_path / "a", OPTIONS, workers=workers, say=said.append)
    tiles = [read_tile(archive, key) for key in tile_keys(archive)]
    assert manifest == write_shards(tiles, tmp_path / "b", OPTIONS)
    assert (
        contents(tmp_path / "a") == contents(tmp_path / "b") and len(contents(tmp_path / "a")) == 7
    )
    assert len(said) == 3 and said[-1].startswith("[3/3] shard-00000")


def test_a_tile_that_changed_unseen_is_not_packed(archive, tmp_path):
    group = zarr.open_group(str(archive / "tiles/c"), mode="r+")
    group["labels"][:4] = 7
    with pytest.raises(InputError, match="tile 'c' has another content"):
        pack(archive, tmp_path / "a", OPTIONS, workers=0)
    assert not (tmp_path / "a/manifest.json").exists()


def test_a_tile_that_was_made_anew_is_another_plan(archive, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data.shards.pack.write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(archive, tmp_path / "a", OPTIONS, workers=0)
    (archive / "tiles/b").rename(tmp_path / "old")
    tile = make_tile("b")
    tile.arrays["hr"] = np.zeros_like(tile.arrays["hr"])
    write_tile(archive, tile)
    before = contents(tmp_path / "a")
    with pytest.raises(InputError, match="--restart"):
        pack(archive, tmp_path / "a", OPTIONS, workers=0)
    assert contents(tmp_path / "a") == before
    pack(archive, tmp_path / "a", OPTIONS, workers=0, restart=True)
    pack(archive, tmp_path / "b", OPTIONS, workers=0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    "where",
    [
        "data.shards.pack.Journal.remove",
        "data.shards.pack.write_manifest",
        "data.shards.pack.claim",
    ],
)
def test_a_kill_between_the_last_steps_is_continued(archive, tmp_path, monkeypatch, where):
    def killed(*_, **options):
        raise KeyboardInterrupt

    pack(archive, tmp_path / "b", OPTIONS, workers=0)
    (tmp_path / "a").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(KeyboardInterrupt):
            pack(archive, tmp_path / "a", OPTIONS, workers=0)
    assert (tmp_path / "a/shards.partial.jsonl").exists()
    pack(archive, tmp_path / "a", OPTIONS, workers=0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_dataset_of_others_is_left_alone(archive, tmp_path):
    pack(archive, tmp_path / "a", OPTIONS, workers=0)
    before = contents(tmp_path / "a")
    with pytest.raises(InputError, match="--overwrite"):
        pack(archive, tmp_path / "a", ShardOptions(samples_per_shard=3), workers=0)
    assert contents(tmp_path / "a") == before
    pack(archive, tmp_path / "a", ShardOptions(samples_per_shard=3), overwrite=True, workers=0)
    assert len(contents(tmp_path / "a")) == 5
    with pytest.raises(InputError, match="no tiles"):
        pack(create_archive(tmp_path / "empty"), tmp_path / "c", OPTIONS)
    assert not (tmp_path / "c").exists()
