"""The zarr archive: round trip, publication, refusal of other people's folders."""

import copy
import hashlib
import json
import os

import numpy as np
import pytest
import zarr

from data.errors import InputError
from data.tiles.archive import (
    check_archive,
    create_archive,
    discard_partial_tiles,
    discard_tile,
    read_tile,
    stored_digest,
    tile_digest,
    tile_keys,
    write_tile,
)
from data.tiles.tile import Tile


def make_tile(key="a-1", cells=4, frames=5) -> Tile:
    rng = np.random.default_rng(0)
    tile = Tile(
        key=key,
        cells=cells,
        crs="EPSG:32632",
        transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_700_000.0),
        lon=9.0,
        lat=51.45,
        source="a.tif",
        licence="CC-BY-4.0",
        attribution="somebody",
    )
    tile.arrays = {
        "hr": rng.integers(0, 256, (3, 32 * cells, 32 * cells), np.uint8),
        "ms": rng.integers(0, 9999, (frames, 10, cells, cells), np.uint16),
        "sar": rng.normal(size=(2, 2, cells, cells)).astype(np.float32),
        "labels": rng.integers(0, 9, (8 * cells, 8 * cells), np.uint8),
    }
    tile.valid = {
        name: rng.random((count, cells, cells)) > 0.2
        for name, count in (("hr", 1), ("ms", frames), ("sar", 2))
    }
    tile.dates = {
        "hr": ["2019-07-01"],
        "ms": [f"2019-07-{day:02d}" for day in range(1, frames + 1)],
        "sar": ["2019-07-02", "2019-07-09"],
    }
    return tile


def test_round_trip_is_exact(tmp_path):
    archive, tile = create_archive(tmp_path / "archive"), make_tile()
    write_tile(archive, tile)
    back = read_tile(archive, "a-1")
    for name in tile.arrays:
        np.testing.assert_array_equal(back.arrays[name], tile.arrays[name])
        assert back.arrays[name].dtype == tile.arrays[name].dtype
    for name in tile.valid:
        np.testing.assert_array_equal(back.valid[name], tile.valid[name])
    for name in (
        "key",
        "cells",
        "crs",
        "transform",
        "lon",
        "lat",
        "dates",
        "source",
        "licence",
        "attribution",
    ):
        assert getattr(back, name) == getattr(tile, name)


def test_stock_zarr_reads_it_and_the_codec_is_zstd(tmp_path):
    archive, tile = create_archive(tmp_path / "archive"), make_tile()
    write_tile(archive, tile)
    root = zarr.open_group(str(archive), mode="r")
    assert root.metadata.zarr_format == 3 and len(root.attrs["classes"]) > 30
    array = root["tiles/a-1/ms"]
    np.testing.assert_array_equal(array[:], tile.arrays["ms"])
    assert [type(codec).__name__ for codec in array.compressors] == ["ZstdCodec"]


def test_the_digest_is_the_hash_that_its_words_say(tmp_path):
    archive, tile = create_archive(tmp_path / "archive"), make_tile()
    metadata = {
        name: getattr(tile, name)
        for name in (
            "key",
            "crs",
            "transform",
            "cells",
            "lon",
            "lat",
            "dates",
            "source",
            "licence",
            "attribution",
        )
    }
    arrays = tile.arrays | {f"{name}_valid": mask for name, mask in tile.valid.items()}
    text = json.dumps(metadata, sort_keys=True).encode() + b"\n"
    for name in ("hr", "hr_valid", "labels", "ms", "ms_valid", "sar", "sar_valid"):
        kind = {"hr": "|u1", "labels": "|u1", "ms": "<u2", "sar": "<f4"}.get(name, "|b1")
        text += (
            json.dumps([name, kind, list(arrays[name].shape)]).encode()
            + b"\n"
            + arrays[name].tobytes()
        )
    expected = hashlib.blake2b(text, digest_size=16).hexdigest()
    assert (
        write_tile(archive, tile) == tile_digest(tile) == stored_digest(archive, "a-1") == expected
    )
    assert tile_digest(read_tile(archive, "a-1")) == expected
    with pytest.raises(InputError, match="no tile 'b'"):
        stored_digest(archive, "b")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "key", "a-2"),
        lambda t: setattr(t, "licence", "CC0-1.0"),
        lambda t: setattr(t, "lon", 9.1),
        lambda t: t.dates["ms"].__setitem__(0, "2019-06-30"),
        lambda t: t.arrays.pop("labels"),
        lambda t: t.arrays["hr"].__setitem__((0, 0, 0), t.arrays["hr"][0, 0, 0] ^ 1),
        lambda t: t.valid["sar"].__setitem__((0, 0, 0), ~t.valid["sar"][0, 0, 0]),
        lambda t: t.arrays.update(ms=t.arrays["ms"][:, :, ::-1]),
    ],
)
def test_every_change_changes_the_digest(change):
    tile = make_tile()
    changed = copy.deepcopy(tile)
    change(changed)
    assert tile_digest(changed) != tile_digest(tile)


def test_discarded_tiles_are_gone(tmp_path):
    archive = create_archive(tmp_path / "archive")
    write_tile(archive, make_tile("a"))
    write_tile(archive, make_tile("b"))
    (archive / "tiles/.partial-b-0").mkdir()
    discard_tile(archive, "b")
    discard_partial_tiles(archive)
    discard_tile(archive, "c")
    assert os.listdir(archive / "tiles") in (["a", "zarr.json"], ["zarr.json", "a"])
    assert write_tile(archive, make_tile("b")) == tile_digest(make_tile("b"))


def test_missing_modalities_are_absent(tmp_path):
    archive, tile = create_archive(tmp_path / "archive"), make_tile()
    for name in ("hr", "sar"):
        del tile.arrays[name], tile.valid[name], tile.dates[name]
    del tile.arrays["labels"]
    write_tile(archive, tile)
    assert read_tile(archive, "a-1").modalities == ["ms"] and set(
        read_tile(archive, "a-1").arrays
    ) == {"ms"}


def test_a_killed_write_publishes_nothing(tmp_path, monkeypatch):
    archive = create_archive(tmp_path / "archive")
    write_tile(archive, make_tile("first"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            write_tile(archive, make_tile("second"))
    assert tile_keys(archive) == ["first"]
    with pytest.raises(InputError, match="no tile 'second'"):
        read_tile(archive, "second")
    write_tile(archive, make_tile("second"))  # the litter does not stand in the way
    assert tile_keys(archive) == ["first", "second"]


def test_keys_are_unique_and_plain(tmp_path):
    archive = create_archive(tmp_path / "archive")
    tile = make_tile()
    digest = write_tile(archive, tile)
    assert write_tile(archive, tile) == digest  # as two workers do that lost each other
    tile.arrays["ms"] += 1
    with pytest.raises(InputError, match="there already"):
        write_tile(archive, tile)
    assert os.listdir(archive / "tiles") in (["a-1", "zarr.json"], ["zarr.json", "a-1"])
    for key in ("a.b", "../a", "", ".partial-a"):
        with pytest.raises(InputError, match="key"):
            write_tile(archive, make_tile(key))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t.arrays.update(ms=t.arrays["ms"].astype(np.int32)), "ms is int32"),
        (lambda t: t.arrays.update(hr=t.arrays["hr"][:, :-1]), "hr is uint8"),
        (lambda t: t.valid.pop("sar"), "valid"),
        (lambda t: t.dates.update(ms=t.dates["ms"][::-1]), "time order"),
        (lambda t: t.arrays.clear(), "no modality"),
    ],
)
def test_malformed_tiles_are_refused(tmp_path, spoil, message):
    archive, tile = create_archive(tmp_path / "archive"), make_tile()
    spoil(tile)
    with pytest.raises(InputError, match=message):
        write_tile(archive, tile)
    assert tile_keys(archive) == []


def test_folders_of_others_are_left_alone(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not a tile archive"):
            create_archive(other, overwrite=overwrite)
    assert (other / "thesis.txt").read_text() == "years of work"
    zarr.open_group(str(tmp_path / "foreign"), mode="w")  # a zarr group, but not ours
    with pytest.raises(InputError, match="not a tile archive"):
        create_archive(tmp_path / "foreign", overwrite=True)
    with pytest.raises(InputError, match="found a file"):
        create_archive(other / "thesis.txt")
    with pytest.raises(InputError, match="found none"):
        tile_keys(other)


@pytest.mark.parametrize(
    "metadata", ["", "{", "[]", "5", "{}", '{"attributes": 5}', '{"attributes": {"format": "x"}}']
)
def test_metadata_of_others_is_no_archive(tmp_path, metadata):
    (tmp_path / "zarr.json").write_text(metadata)
    with pytest.raises(InputError, match="expected a tile archive .* found none"):
        check_archive(tmp_path)
    with pytest.raises(InputError, match="not a tile archive"):
        create_archive(tmp_path, overwrite=True)


def test_a_chunk_without_anything_is_stored_too(tmp_path):
    archive, tile = create_archive(tmp_path / "archive"), make_tile()
    tile.arrays["hr"][:] = 0
    write_tile(archive, tile)
    stored = zarr.open_array(str(archive / "tiles/a-1/hr"), mode="r")
    assert stored.nchunks_initialized == stored.nchunks
    assert not read_tile(archive, "a-1").arrays["hr"].any()


def test_overwrite_empties_an_archive_of_ours(tmp_path):
    archive = create_archive(tmp_path / "archive")
    write_tile(archive, make_tile())
    with pytest.raises(InputError, match="--overwrite"):
        create_archive(archive)
    create_archive(archive, overwrite=True)
    assert tile_keys(archive) == []
