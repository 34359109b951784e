"""Colours applied on the model's device are those that the loader would have applied."""

from dataclasses import replace

import pytest
import torch

from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.stream.batches import open_stream
from data.stream.settings import GLOBAL
from engine.training.objective import to_views
from tests.unit.tiles import SETTINGS, make_tile

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    write_shards(
        [make_tile(f"t{i}", i, clouds=(0.0, 0.2)[i % 2]) for i in range(6)]
        + [make_tile("series", 7, modalities=("ms", "sar"))],
        folder,
    )
    return ShardDataset.open(folder)


def batches(dataset, workers, **augment):
    settings = replace(SETTINGS, augment=replace(SETTINGS.augment, **augment), workers=workers)
    return list(open_stream(dataset, settings, seed=3, batch_size=7, steps=range(4)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_model_sees_the_same(dataset, device, workers):
    always = {"jitter_probability": 1.0, "solarise_probability": 0.5}
    tolerance = 2e-5 if device == "cpu" else 1e-3  # hue is a branch on which colour is largest
    for loader, later in zip(
        batches(dataset, workers, **always), batches(dataset, workers, **always, on_device=True)
    ):
        assert all(views.images["hr"].dtype == torch.uint8 for views in later.views.values())
        assert later.keys == loader.keys
        one = to_views(loader, torch.device(device))
        two = to_views(later, torch.device(device))
        for size in one:
            for name, image in one[size].images.items():
                torch.testing.assert_close(two[size].images[name], image, atol=tolerance, rtol=0)
                assert torch.equal(two[size].valid[name], one[size].valid[name])


def test_the_colours_do_change_something(dataset):
    plain = batches(
        dataset,
        0,
        jitter_probability=0.0,
        grey_probability=0.0,
        blur_probability=(0.0, 0.0, 0.0),
        solarise_probability=0.0,
        on_device=True,
    )
    changed = batches(dataset, 0, on_device=True)
    one, two = (
        to_views(found[0], torch.device("cpu"))[GLOBAL].images["hr"] for found in (plain, changed)
    )
    assert torch.equal(plain[0].views[GLOBAL].images["hr"], changed[0].views[GLOBAL].images["hr"])
    assert (one - two).abs().max() > 0.1
