"""Shards of one split each: what they hold, how one is chosen, and what has no split."""

import json
import pickle
import tarfile
from dataclasses import replace

import pytest

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.pack import pack
from data.shards.writer import write_shards
from data.stream.mixture import Mixture
from data.stream.settings import DataSettings
from data.tiles.archive import create_archive, read_tile, tile_digest, write_tile
from data.tiles.shrink import shrink_advice
from tests.unit.tiles import make_tile

SPLITS = {
    "a": "train",
    "b": "validation",
    "c": "train",
    "d": "",
    "e": "validation",
    "f": "test",
    "g": "",
}
OPTIONS = ShardOptions(samples_per_shard=2)


def small(key, split, cells=4):
    return replace(make_tile(key, cells=cells, modalities=("ms",), labels=False), split=split)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = create_archive(tmp_path_factory.mktemp("split") / "archive")
    for key, split in SPLITS.items():
        write_tile(folder, small(key, split))
    return folder


def keys_in_tars(folder):
    """The keys of each tar, as tarfile reads them."""
    tars = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            tars.append({name.split(".")[0] for name in tar.getnames()})
    return tars


def test_the_archive_keeps_the_split(archive, tmp_path):
    assert {key: read_tile(archive, key).split for key in SPLITS} == SPLITS
    attributes = {
        key: json.loads((archive / f"tiles/{key}/zarr.json").read_text())["attributes"]
        for key in "ad"
    }
    assert attributes["a"]["split"] == "train" and "split" not in attributes["d"]
    assert (
        tile_digest(small("a", "")) != attributes["a"]["digest"] == tile_digest(small("a", "train"))
    )
    with pytest.raises(InputError, match="split 'val': expected one of"):
        write_tile(archive, small("z", "val"))


def test_a_shard_holds_tiles_of_one_split(archive, tmp_path):
    manifest = pack(archive, tmp_path / "s", OPTIONS, workers=0, say=lambda line: None)
    tars = keys_in_tars(tmp_path / "s")
    kinds = [{SPLITS[key] or "train" for key in keys} for keys in tars]
    assert kinds == [{"train"}, {"train"}, {"validation"}, {"test"}]
    assert set.union(*tars) == set(SPLITS)
    assert manifest.splits == {"train": 4, "validation": 2, "test": 1}


@pytest.mark.parametrize(
    "split, keys",
    [
        ("train", set("acdg")),
        ("validation", set("be")),
        ("test", {"f"}),
        ("all", set("abcdefg")),
    ],
)
def test_a_split_is_chosen_for_training(archive, tmp_path, split, keys):
    pack(archive, tmp_path / "s", OPTIONS, workers=0, say=lambda line: None)
    settings = DataSettings(shards=str(tmp_path / "s"), split=split)
    dataset = Mixture.open(settings)
    assert set(dataset.keys()) == keys and len(dataset) == len(keys)
    assert {dataset.entry(i).split or "" for i in range(len(keys))} == {SPLITS[k] for k in keys}
    for i in range(len(keys)):
        meta = json.loads(dataset.read(i, [("meta", None)])[0])
        assert meta["key"] == dataset.entry(i).key and dataset.region(i) >= 0
    again = pickle.loads(pickle.dumps(dataset.datasets[0]))
    assert again.keys() == dataset.keys() and again.fingerprint == dataset.fingerprint


def test_training_takes_the_tiles_for_training_unless_told(archive, tmp_path):
    pack(archive, tmp_path / "s", OPTIONS, workers=0, say=lambda line: None)
    assert set(Mixture.open(DataSettings(shards=str(tmp_path / "s"))).keys()) == set("acdg")
    prints = {ShardDataset.open(tmp_path / "s", split=s).fingerprint for s in ("train", "all")}
    assert len(prints) == 2


def test_one_split_is_packed(archive, tmp_path):
    options = replace(OPTIONS, split="validation")
    pack(archive, tmp_path / "s", options, workers=0, say=lambda line: None)
    assert keys_in_tars(tmp_path / "s") == [set("be")]
    with pytest.raises(InputError, match="no samples of the split 'train'; there are: validation"):
        ShardDataset.open(tmp_path / "s", split="train")


def test_what_is_not_there_is_told(archive, tmp_path):
    plain = create_archive(tmp_path / "archive")
    write_tile(plain, small("a", ""))
    with pytest.raises(InputError, match="no tiles of the split 'test'; there are: train 1"):
        pack(plain, tmp_path / "s", replace(OPTIONS, split="test"), workers=0)
    with pytest.raises(InputError, match="split 'val': expected one of"):
        pack(plain, tmp_path / "s", replace(OPTIONS, split="val"), workers=0)
    tiles = [small("a", "train"), small("b", "validation")]
    with pytest.raises(InputError, match="expected tiles of one split, found"):
        write_shards(tiles, tmp_path / "w", OPTIONS)
    problem = DataSettings(shards="s", split="val").problem()
    assert "data.split: expected one of" in problem


def test_tiles_that_views_shrink_too_far_are_told_at_packing(tmp_path):
    folder = create_archive(tmp_path / "archive")
    for key, cells in (("a", 8), ("b", 9), ("c", 12)):
        write_tile(folder, small(key, "", cells))
    said = []
    pack(folder, tmp_path / "s", OPTIONS, workers=0, native_cells=4, say=said.append)
    assert "2 of 3 tiles are larger than 8 cells" in said[0] and "by up to 3;" in said[0]
    assert "cut tiles of 6 to 8 cells" in said[0]
    assert shrink_advice({8: 1, 5: 3}, 4) is None and shrink_advice({}, 4) is None
