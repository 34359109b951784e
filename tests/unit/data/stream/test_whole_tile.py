"""Whole tiles as a model's input, against the archive's own numbers."""

import numpy as np
import pytest
import torch

from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.stream.whole_tile import InputShape, ModelInput, read_whole_tile, spread
from data.tiles.modalities import MODALITIES, normalise
from data.tiles.regions import NO_REGION, RegionTable
from data.tiles.tile import UNLABELLED, day_index
from tests.unit.tiles import make_tile

TILE = make_tile("a", 1, cells=6)
SHAPE = InputShape({"hr": 192, "ms": 6, "sar": 12}, {"hr": 1, "ms": 3, "sar": 9})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiles = [TILE, make_tile("optical", 2, modalities=("hr",), labels=False)]
    write_shards(tiles, folder, ShardOptions(hr_codec="png"))
    return ShardDataset.open(folder)


def read(dataset, key, shape=SHAPE, places=((TILE.lon, TILE.lat),)):
    regions = RegionTable.from_points(places)
    inputs = ModelInput(shape, dict(MODALITIES), regions)
    return read_whole_tile(dataset, dataset.keys().index(key), inputs)


def test_at_its_own_size_a_tile_keeps_its_numbers(dataset):
    tile = read(dataset, "a")
    frames = [0, 2, 4]  # of five, evenly spaced
    mask = torch.from_numpy(TILE.valid["ms"][frames])
    assert torch.equal(tile.valid["ms"], mask)
    expected = normalise(TILE.arrays["ms"][frames], "ms")
    expected = np.where(mask[:, None].numpy(), expected, 0)
    np.testing.assert_allclose(tile.images["ms"], expected, atol=1e-6)
    assert tile.days["ms"].tolist() == [day_index(TILE.dates["ms"][frame]) for frame in frames]
    pixels = np.kron(TILE.valid["hr"][0], np.ones((32, 32), bool))
    expected = np.where(pixels, normalise(TILE.arrays["hr"], "hr"), 0)
    np.testing.assert_allclose(tile.images["hr"][0], expected, atol=1e-6)
    labels = TILE.arrays["labels"].astype(np.int64)
    assert np.array_equal(tile.labels, np.where(labels == UNLABELLED, -1, labels))
    assert tile.region == 0


def test_shapes_do_not_depend_on_what_a_tile_has(dataset):
    whole = read(dataset, "a")
    bare = read(dataset, "optical")
    for name in SHAPE.sides:
        assert whole.images[name].shape == bare.images[name].shape
        assert whole.valid[name].shape == bare.valid[name].shape
    assert not bare.valid["ms"].any()
    assert not bare.images["ms"].any()
    assert bare.labels is None
    assert not whole.valid["sar"][4:].any()  # four frames of nine


def test_a_smaller_picture_is_read_from_a_reduction_and_has_the_same_mean(dataset):
    small = InputShape({"hr": 96}, {"hr": 1})
    tile = read(dataset, "a", small)
    assert tile.images["hr"].shape == (1, 3, 96, 96)
    full = read(dataset, "a")
    seen = full.valid["hr"][0, ::2, ::2] & tile.valid["hr"][0]
    pooled = torch.nn.functional.avg_pool2d(full.images["hr"], 2)[0]
    difference = (pooled - tile.images["hr"][0])[:, seen].mean(1)
    assert difference.abs().max() < 0.02


def test_a_place_that_the_model_does_not_know_has_no_region(dataset):
    assert read(dataset, "optical").region == NO_REGION


@pytest.mark.parametrize("count, expected", [(1, [5]), (2, [2, 7]), (3, [1, 5, 8])])
def test_frames_are_evenly_spaced(count, expected):
    assert spread(list(range(10)), count).tolist() == expected
    assert spread([4, 6], count + 1).tolist() == [4, 6]
