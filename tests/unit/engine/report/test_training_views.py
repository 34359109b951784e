"""Which samples are drawn, and which cells of two views are joined."""

from dataclasses import replace

import numpy as np
import pytest

from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.stream.cut import cut_sample
from data.stream.mixture import Mixture
from data.stream.order import Order
from data.stream.sample import ViewName
from data.stream.settings import GLOBAL, LOCAL
from engine.config.load import load
from engine.report.training_views import (
    Kind,
    Pick,
    clearest_view_frame,
    correspondence,
    draw_views,
    pick,
    seen,
)
from tests.commands import TINY
from tests.unit.tiles import SETTINGS, make_tile


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    tiles = [
        make_tile("everything", 1),
        make_tile("optical", 3, modalities=("hr",)),
        make_tile("two", 2),
        make_tile("series", 4, modalities=("ms", "sar")),
    ]
    write_shards(tiles, folder)
    return Mixture([ShardDataset.open(folder)])


def test_joined_dots_are_the_same_ground(dataset):
    """Both ends of a line, taken to the tile by the affines of their views, are one place."""
    sample = dataset.keys().index("two")
    teacher = ViewName(GLOBAL, 1)
    joined = 0
    for use in range(8):
        cut = cut_sample(dataset, SETTINGS, seed=0, sample=sample, use=use)
        for student in (ViewName(GLOBAL, 0), ViewName(LOCAL, 1)):
            side = 2 if student.size == GLOBAL else 3
            found = correspondence(seen(cut.view(student), side), seen(cut.view(teacher), 4))
            count = len(found.centres)
            assert count == side**2
            assert found.centres[1].tolist() == [1.5 / side, 0.5 / side]  # row by row, u first
            np.testing.assert_allclose(
                np.c_[found.centres, np.ones(count)] @ cut.view(student).affine.T,
                np.c_[found.places, np.ones(count)] @ cut.view(teacher).affine.T,
                atol=1e-9,
            )
            outside = (found.places < 0).any(1) | (found.places > 1).any(1)
            assert not (found.meets & outside).any()
            joined += found.meets.sum()
    assert joined > 10


def test_pick_takes_the_first_of_each_kind(dataset):
    kinds = [
        Kind(hr=True, series=True),
        Kind(hr=False, series=True),
        Kind(hr=True, series=False),
        Kind(hr=False, series=False),
    ]
    picks = pick(dataset, kinds, sensors=SETTINGS.frames, seed=7, batch_size=2)
    order = Order(7, dataset.parts, batch_size=2)
    drawn = [(step, sample) for step in range(2) for sample, _ in order.step(step)]
    keys = [dataset.entry(chosen.sample).key for chosen in picks]
    complete = [
        dataset.entry(sample).key
        for _, sample in drawn
        if len(dataset.entry(sample).modalities) == 3
    ]
    assert keys == [complete[0], "series", "optical"]  # of the fourth kind there is none
    assert all((chosen.step, chosen.sample) in drawn and chosen.use == 0 for chosen in picks)


def test_sensors_that_the_run_leaves_out_do_not_count(dataset):
    kinds = [Kind(hr=True, series=False)]
    picks = pick(dataset, kinds, sensors={"hr"}, seed=7, batch_size=2)
    assert dataset.entry(picks[0].sample).key in ("everything", "two", "optical")
    assert not pick(dataset, [Kind(hr=True, series=True)], sensors={"hr"}, seed=7, batch_size=2)


def test_a_view_without_any_valid_cell_is_left_out(tmp_path):
    tile = make_tile("dark", 1, modalities=("ms",), clouds=1.0)
    tile.valid["ms"][:, 0, 0] = True  # one usable corner, which the views below do not show
    write_shards([tile], tmp_path)
    dataset = Mixture([ShardDataset.open(tmp_path)])
    spec = load(TINY).settings.model
    figure = None
    for use in range(20):
        cut = cut_sample(dataset, SETTINGS, seed=0, sample=0, use=use)
        if clearest_view_frame(cut, "ms") is None:
            figure = draw_views(dataset, SETTINGS, Pick(0, use, 0), spec, seed=0)
            break
    assert figure is not None and len(figure.subfigs[0].subfigs[0].axes) == 1


@pytest.mark.parametrize("on_device", [False, True])
def test_views_show_the_sensors_that_the_sample_has(dataset, on_device):
    settings = replace(SETTINGS, augment=replace(SETTINGS.augment, on_device=on_device))
    spec = load(TINY).settings.model
    kinds = [Kind(hr=False, series=True)]
    for chosen in pick(dataset, kinds, sensors=SETTINGS.frames, seed=0, batch_size=1):
        cut = cut_sample(dataset, settings, seed=0, sample=chosen.sample, use=chosen.use)
        assert clearest_view_frame(cut, "hr") is None
        figure = draw_views(dataset, settings, chosen, spec, seed=0)
        crops = figure.subfigs[0].subfigs[1].axes
        assert [axis.get_ylabel() for axis in crops if axis.get_ylabel()] == ["ms", "sar"]


def test_the_pixels_are_those_of_training_wherever_colours_are_applied(dataset):
    sample = dataset.keys().index("optical")
    images = []
    for on_device in (False, True):
        settings = replace(SETTINGS, augment=replace(SETTINGS.augment, on_device=on_device))
        cut = cut_sample(dataset, settings, seed=3, sample=sample, use=1)
        images.append(cut.view(ViewName(GLOBAL, 0)).coloured("hr"))
    assert (images[0] == images[1]).all() and 0 <= images[0].min() <= images[0].max() <= 1
