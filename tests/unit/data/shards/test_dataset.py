"""Shards: readable by stock webdataset, byte-equal, and damage never goes unnoticed."""

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import webdataset
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from PIL import Image

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.stream.decode import decode
from data.tiles.archive import create_archive, read_tile, write_tile
from tests.paths import ROOT
from tests.unit.tiles import make_tile

DOCS = ROOT / "docs" / "shards.md"
TILES = [
    make_tile("a-0", 0),
    make_tile("b_1", 1, cells=4, modalities=("hr",)),
    make_tile("c2", 2, cells=8, modalities=("ms", "sar"), labels=False),
    make_tile("d3", 3),
    make_tile("e4", 4, modalities=("ms",)),
]
BY_KEY = {tile.key: tile for tile in TILES}


@pytest.fixture
def shards(tmp_path):
    write_shards(
        TILES, tmp_path / "shards", ShardOptions(samples_per_shard=2, seed=7, hr_codec="png")
    )
    return tmp_path / "shards"


def files(path):
    return {
        entry.name: hashlib.sha256(entry.read_bytes()).hexdigest()
        for entry in sorted(Path(path).iterdir())
    }


def sample_of(dataset, key):
    return dataset.keys().index(key)


def unstack(data, table):
    """A series as its table in meta.json says, without the project's own decoder."""
    frames = [Blosc().decode(data[offset : offset + size]) for offset, size, _ in table["frames"]]
    numbers = np.stack(
        [np.frombuffer(frame, table["dtype"]).reshape(table["shape"]) for frame in frames]
    )
    return numbers * (table["step"] or 1)


def assert_stored(found, tile, name, frames=slice(None)):
    """Whole numbers come through as they are, decibels within half a step."""
    usable = np.broadcast_to(tile.valid[name][frames][:, None], found.shape)
    expected = tile.arrays[name][frames][usable]
    np.testing.assert_allclose(found[usable], expected, rtol=0, atol=0 if name == "ms" else 0.0051)


def test_stock_webdataset_reads_everything(shards):
    urls = sorted(str(path) for path in shards.glob("*.tar"))
    samples = {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False)}
    assert set(samples) == set(BY_KEY)
    for key, sample in samples.items():
        tile, meta = BY_KEY[key], json.loads(sample["meta.json"])
        assert meta["licence"] == tile.licence and meta["dates"] == tile.dates
        assert tuple(meta["transform"]) == tile.transform
        for name in ("ms", "sar"):
            assert (f"{name}.blosc" in sample) == (name in tile.arrays)
        for name in tile.modalities:
            assert Zstd().decode(sample[f"{name}_valid.zst"]) == tile.valid[name].tobytes()
            assert meta["stacks"][f"{name}_valid"] == {
                "dtype": "|b1",
                "shape": list(tile.valid[name].shape),
            }
            if name != "hr":
                assert_stored(unstack(sample[f"{name}.blosc"], meta["stacks"][name]), tile, name)
        if "hr" in tile.arrays:
            image = np.asarray(Image.open(io.BytesIO(sample["hr.png"])))
            assert (image.transpose(2, 0, 1) == tile.arrays["hr"]).all()
        if "labels" in tile.arrays:
            assert (
                np.asarray(Image.open(io.BytesIO(sample["labels.png"]))) == tile.arrays["labels"]
            ).all()


def test_webdataset_decodes_the_standard_members(shards):
    sample = next(
        iter(
            webdataset.WebDataset(str(shards / "shard-000000.tar"), shardshuffle=False).decode(
                "pil"
            )
        )
    )
    assert sample["meta.json"]["key"] == sample["__key__"]


def test_the_documented_example_reads_the_shards(tmp_path, monkeypatch, capsys):
    write_shards(TILES, tmp_path / "runs" / "shards")
    example = re.search(
        r"## With stock webdataset\n.*?```python\n(.*?)```", DOCS.read_text(), re.DOTALL
    )[1]
    monkeypatch.chdir(tmp_path)
    documented: dict = {}
    exec(compile(example, "docs/shards.md", "exec"), documented)
    lines = capsys.readouterr().out.splitlines()
    for key in ("a-0", "d3"):
        assert f"{key} hr (192, 192)" in lines
        assert f"{key} ms 2019-01-10 (5, 10, 6, 6) (5, 6, 6)" in lines
    read = 0
    tar = tmp_path / "runs" / "shards" / "shard-000000.tar"
    for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
        tile = BY_KEY[sample["__key__"]]
        for sensor in {"ms", "sar"} & set(tile.modalities):
            numbers, valid = documented["series"](sample, sensor)
            assert np.array_equal(valid, tile.valid[sensor])
            error = np.abs(numbers - tile.arrays[sensor].astype(np.float64))
            assert error.transpose(0, 2, 3, 1)[valid].max() <= 0.005 + 1e-5
            read += 1
    assert read == 7


def test_equal_input_gives_equal_bytes(shards, tmp_path):
    write_shards(
        iter(TILES), tmp_path / "again", ShardOptions(samples_per_shard=2, seed=7, hr_codec="png")
    )
    assert files(shards) == files(tmp_path / "again")
    manifest = write_shards(
        TILES, tmp_path / "other", ShardOptions(samples_per_shard=2, seed=8, hr_codec="png")
    )
    first, other = ShardDataset.open(shards), ShardDataset.open(tmp_path / "other")
    assert first.keys() != other.keys() and sorted(first.keys()) == sorted(other.keys())
    assert first.fingerprint != manifest.fingerprint


def test_tiles_pass_through_archive_and_shards(tmp_path):
    archive = create_archive(tmp_path / "archive")
    write_tile(archive, TILES[0])
    write_shards([read_tile(archive, "a-0")], tmp_path / "shards", ShardOptions(hr_codec="png"))
    dataset = ShardDataset.open(tmp_path / "shards")
    found = decode(dataset, 0, {"hr": np.array([0]), "ms": np.array([1, 4]), "sar": np.array([0])})
    assert (found.hr.numpy() == TILES[0].arrays["hr"]).all()
    assert_stored(found.series["ms"].numpy(), TILES[0], "ms", [1, 4])
    assert_stored(found.series["sar"].numpy(), TILES[0], "sar", [0])
    assert (found.valid["ms"].numpy() == TILES[0].valid["ms"][[1, 4]]).all()
    assert (found.labels.numpy() == TILES[0].arrays["labels"]).all()


def test_jpeg_is_close_to_the_source(tmp_path):
    ramp = np.add.outer(np.arange(192), np.arange(192))[None] * np.array(
        [[[0.3]], [[0.5]], [[0.6]]]
    )
    tile = make_tile("smooth", clouds=0)
    tile.arrays["hr"] = ramp.astype(np.uint8)
    write_shards([tile], tmp_path / "s", ShardOptions(hr_codec="jpeg", quality=95))
    found = decode(ShardDataset.open(tmp_path / "s"), 0, {"hr": np.array([0])}).hr.numpy()
    assert np.abs(found.astype(int) - tile.arrays["hr"]).mean() < 1.5


def test_manifest_tells_counts_regions_classes_and_credits(shards):
    dataset = ShardDataset.open(shards)
    assert len(dataset) == 5 and [shard.samples for shard in dataset.manifest.shards] == [2, 2, 1]
    for sample, key in enumerate(dataset.keys()):
        entry = dataset.entry(sample)
        assert dataset.region(sample) == dataset.regions.lookup(BY_KEY[key].lon, BY_KEY[key].lat)
        assert entry.modalities == BY_KEY[key].modalities
        assert entry.dates == BY_KEY[key].dates
    assert len(dataset.regions) == 5
    assert {(credit.licence, credit.samples) for credit in dataset.attribution} == {
        ("CC0", 3),
        ("CC-BY-4.0", 2),
    }
    assert dataset.classes[0].index == 0 and dataset.classes[0].text


def test_frames_without_valid_pixels_are_not_usable(tmp_path):
    tile = make_tile("t")
    tile.valid["ms"][[0, 3]] = False
    write_shards([tile], tmp_path / "s")
    assert ShardDataset.open(tmp_path / "s").entry(0).usable["ms"] == [1, 2, 4]


def tar_of(dataset, sample):
    return f"{dataset.shard_name(sample)}.tar"


def test_decoded_series_are_zero_where_invalid(tmp_path):
    tile = make_tile("t")
    for name, poison in (("ms", 65535), ("sar", np.inf)):
        tile.arrays[name][~np.repeat(tile.valid[name][:, None], tile.arrays[name].shape[1], 1)] = (
            poison
        )
    write_shards([tile], tmp_path)
    found = decode(ShardDataset.open(tmp_path), 0, {"ms": np.arange(5), "sar": np.arange(4)})
    for name, series in found.series.items():
        invalid = ~found.valid[name][:, None].expand(series.shape)
        assert invalid.any() and (series[invalid] == 0).all() and (series[~invalid] != 0).any()


def test_large_images_have_reductions(tmp_path):
    tile = make_tile("large", cells=64, modalities=("hr",), clouds=0)
    ramp = np.add.outer(np.arange(2048), 2 * np.arange(2048)) // 28
    tile.arrays["hr"] = np.stack([ramp, ramp[::-1], ramp.T]).astype(np.uint8)
    write_shards([tile], tmp_path, ShardOptions(hr_codec="png"))
    dataset = ShardDataset.open(tmp_path)
    assert "hr_2" in dataset.entry(0).members and "hr_4" not in dataset.entry(0).members
    half = decode(dataset, 0, {"hr": np.array([0])}, level=1).hr.numpy()
    expected = tile.arrays["hr"].astype(float).reshape(3, 1024, 2, 1024, 2).mean((2, 4))
    assert half.shape == (3, 1024, 1024) and np.abs(half - expected).max() <= 0.5


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("field", ["hr", "hr_valid", "labels", "ms", "sar_valid"])
def test_a_flipped_bit_is_found_and_named(shards, field):
    dataset = ShardDataset.open(shards)
    sample = sample_of(dataset, "d3")
    member = dataset.entry(sample).members[field]
    shard = next(path for path in shards.glob("*.tar") if b"d3.hr.png" in path.read_bytes())
    damage(shard, member.offset + member.size // 2)
    dataset = ShardDataset.open(shards)
    every = {"hr": np.array([0]), "ms": np.arange(5), "sar": np.arange(4)}
    for call in (
        lambda: dataset.read_member(sample, field),
        lambda: decode(dataset, sample, every),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert all(
            word in str(error.value) for word in ("'d3'", f"'{field}'", shard.name, "CRC32C")
        )
        assert "\n" not in str(error.value)


def test_only_drawn_frames_are_read(shards):
    dataset = ShardDataset.open(shards)
    sample = sample_of(dataset, "d3")
    member = dataset.entry(sample).members["ms"]
    damage(shards / tar_of(dataset, sample), member.offset + member.frames[2][0] + 5)
    found = decode(ShardDataset.open(shards), sample, {"ms": np.array([0, 1, 3, 4])})
    assert_stored(found.series["ms"].numpy(), BY_KEY["d3"], "ms", [0, 1, 3, 4])
    with pytest.raises(InputError):
        decode(dataset, sample, {"ms": np.array([2])})


def truncate(path):
    path.write_bytes(path.read_bytes()[:-512])


def swap_bytes(path):
    path.write_bytes(path.read_bytes().replace(b"lon", b"lom"))


@pytest.mark.parametrize(
    "name,change",
    [
        ("shard-000001.tar", truncate),
        ("shard-000001.tar", Path.unlink),
        ("shard-000000.index.jsonl", Path.unlink),
        ("shard-000002.index.jsonl", truncate),
        ("manifest.json", Path.unlink),
        ("manifest.json", truncate),
    ],
)
def test_what_is_missing_or_cut_short_is_refused_at_once(shards, name, change):
    change(shards / name)
    with pytest.raises(InputError) as error:
        ShardDataset.open(shards)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_changed_index_is_found(shards):
    swap_bytes(shards / "shard-000001.index.jsonl")
    with pytest.raises(InputError, match="shard-000001.index.jsonl"):
        ShardDataset.open(shards).keys()


def test_a_shard_that_shrinks_while_open_is_found(shards):
    dataset = ShardDataset.open(shards)
    (shards / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(InputError, match="found 0 bytes"):
        dataset.read_member(0, "meta")


def test_other_formats_are_refused(shards):
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(InputError, match="version"):
        ShardDataset.open(shards)


def test_a_manifest_that_lost_a_shard_is_refused(shards):
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(
        json.dumps({**manifest, "shards": manifest["shards"][:2]})
    )
    with pytest.raises(InputError, match="does not fit its hash"):
        ShardDataset.open(shards)


def test_unknown_samples_and_fields_are_refused(shards):
    dataset = ShardDataset.open(shards)
    with pytest.raises(InputError, match="outside"):
        dataset.entry(5)
    with pytest.raises(InputError, match="no field 'sar'"):
        dataset.read_member(sample_of(dataset, "e4"), "sar")


def test_an_interrupted_build_is_no_dataset(tmp_path):
    class Breaks(list):
        def __getitem__(self, index):
            if index == 3:
                raise RuntimeError("power cut")
            return super().__getitem__(index)

    with pytest.raises(RuntimeError):
        write_shards(Breaks(TILES), tmp_path, ShardOptions(samples_per_shard=1))
    with pytest.raises(InputError, match="manifest"):
        ShardDataset.open(tmp_path)


def test_overwriting_needs_the_word_and_leaves_other_files_alone(shards):
    before = files(shards)
    (shards / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        write_shards(TILES[:1], shards)
    assert {**files(shards), "notes.txt": None} == {**before, "notes.txt": None}
    write_shards(TILES[:1], shards, overwrite=True)
    assert sorted(files(shards)) == [
        "manifest.json",
        "notes.txt",
        "shard-000000.index.jsonl",
        "shard-000000.tar",
    ]
    assert ShardDataset.open(shards).keys() == ["a-0"]


def bad_sar(value):
    tile = make_tile("bad", clouds=0)
    tile.arrays["sar"][1, 0, 2, 2] = value
    return tile


@pytest.mark.parametrize(
    "tiles,options",
    [
        ([TILES[0], TILES[0]], {}),
        ([bad_sar(400)], {}),
        ([bad_sar(np.nan)], {}),
        ([bad_sar(np.inf)], {}),
        ([], {}),
        ([make_tile("has.dot")], {}),
        ([make_tile("k" * 200)], {}),
        (TILES, {"hr_codec": "bmp"}),
        (TILES, {"samples_per_shard": 0}),
        (TILES, {"quality": 0}),
    ],
)
def test_unfit_input_is_refused_in_one_line(tmp_path, tiles, options):
    with pytest.raises(InputError) as error:
        write_shards(tiles, tmp_path / "s", ShardOptions(**options))
    assert "\n" not in str(error.value) and not (tmp_path / "s" / "manifest.json").exists()
