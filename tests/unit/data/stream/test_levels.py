"""Levels of the series: drawn by view and band, applied to every frame alike."""

from dataclasses import replace

import numpy as np
import pytest

from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.stream.collate import collate
from data.stream.cut import cut_sample
from tests.unit.tiles import SETTINGS, make_tile


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards([make_tile("a", 1, cells=8)], folder)
    return ShardDataset.open(folder)


def views_of(dataset, levels: float, use: int = 0):
    settings = replace(SETTINGS, augment=replace(SETTINGS.augment, levels=levels))
    sample = cut_sample(dataset, settings, seed=3, sample=0, use=use)
    return collate(0, [sample], settings).views


def test_bands_are_stretched_and_moved_by_view(dataset):
    plain = views_of(dataset, 0.0)
    moved = views_of(dataset, 0.3)
    gains = []
    for size, views in plain.items():
        for name in ("ms", "sar"):
            mask = views.valid[name][0].numpy()  # V T H W
            before = views.images[name][0].double().numpy()  # V T C H W
            after = moved[size].images[name][0].double().numpy()
            for view in range(len(before)):
                for band in range(before.shape[2]):
                    x = before[view, :, band][mask[view]]
                    y = after[view, :, band][mask[view]]
                    gain, offset = np.polyfit(x, y, 1)
                    np.testing.assert_allclose(y, gain * x + offset, atol=1e-4)
                    assert 0.7 <= gain <= 1.3 and abs(offset) <= 0.3
                    gains.append(gain)
            assert not after.transpose(0, 1, 3, 4, 2)[~mask].any()
    assert len(set(np.round(gains, 5))) == len(gains)
    assert np.std(gains) > 0.1


def test_the_image_and_all_other_choices_stay(dataset):
    plain = views_of(dataset, 0.0)
    moved = views_of(dataset, 0.3)
    for size, views in plain.items():
        assert views.images["hr"].equal(moved[size].images["hr"])
        assert views.affine.equal(moved[size].affine)
        assert views.days["ms"].equal(moved[size].days["ms"])


def test_each_use_has_levels_of_its_own(dataset):
    assert (
        views_of(dataset, 0.3)["global"]
        .images["ms"]
        .equal(views_of(dataset, 0.3)["global"].images["ms"])
    )
    assert (
        not views_of(dataset, 0.3)["global"]
        .images["ms"]
        .equal(views_of(dataset, 0.3, use=1)["global"].images["ms"])
    )
