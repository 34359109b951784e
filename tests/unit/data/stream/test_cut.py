"""The one path that cuts a sample: what viewers get is what training collates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.stream.batches import open_stream
from data.stream.collate import collate
from data.stream.cut import cut_sample
from data.stream.order import Order, Part
from data.stream.sample import ViewName
from data.stream.settings import GLOBAL, LOCAL
from data.tiles.modalities import MODALITIES
from tests.unit.data.stream.test_batches import assert_equal
from tests.unit.tiles import SETTINGS, make_tile

SEED = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    tiles = [make_tile("a", 1), make_tile("b", 2, modalities=("ms",)), make_tile("c", 3)]
    write_shards(tiles, folder)
    return ShardDataset.open(folder)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_batch_of_the_stream_is_the_cut_samples_collated(dataset, on_device):
    settings = replace(SETTINGS, augment=replace(SETTINGS.augment, on_device=on_device))
    order = Order(SEED, [Part(len(dataset), dataset.fingerprint)], batch_size=4)
    for batch in open_stream(dataset, settings, seed=SEED, batch_size=4, steps=range(3)):
        cuts = []
        for sample, use in order.step(batch.step):
            cuts.append(cut_sample(dataset, settings, seed=SEED, sample=sample, use=use))
        assert_equal([collate(batch.step, cuts, settings)], [batch])
        assert [cut.draw.key for cut in cuts] == batch.keys


def test_a_view_has_everything_that_a_viewer_draws(dataset):
    sample = dataset.keys().index("a")
    cut = cut_sample(dataset, SETTINGS, seed=SEED, sample=sample, use=1)
    assert [str(name) for name in cut.names] == ["global 1", "global 2", "local 1", "local 2"]
    entry = dataset.entry(sample)
    for modality, frames in cut.draw.frames.items():
        dates = [entry.dates[modality][frame] for frame in frames]
        assert cut.draw.dates[modality] == dates
        assert len(cut.tile.images(modality)) == len(dates)
    for name in cut.names:
        view = cut.view(name)
        assert view.affine.shape == (2, 3) and view.labels.shape == (32, 32)
        for modality, sensor in MODALITIES.items():
            count = len(cut.draw.dates[modality])
            assert len(view.frames.days[modality]) == len(view.frames.seen[modality]) == count
            side = 4 * sensor.pixels
            image = view.coloured(modality)
            assert image.shape[1:] == (len(sensor.bands), side, side)
            assert image.dtype == torch.float32 and view.valid[modality].shape[1:] == (side, side)


def test_a_missing_sensor_is_absent(dataset):
    sample = dataset.keys().index("b")
    cut = cut_sample(dataset, SETTINGS, seed=SEED, sample=sample, use=0)
    view = cut.view(ViewName(LOCAL, 1))
    assert set(view.images) == set(view.valid) == set(cut.tile.valid) == {"ms"}
    assert len(cut.draw.frames["hr"]) == 0 and "hr" not in cut.draw.dates


def test_uses_differ_and_repeat(dataset):
    cuts = [cut_sample(dataset, SETTINGS, seed=SEED, sample=0, use=use) for use in (0, 1, 0)]
    affines = [cut.view(ViewName(GLOBAL, 0)).affine for cut in cuts]
    assert np.array_equal(affines[0], affines[2]) and not np.array_equal(affines[0], affines[1])
