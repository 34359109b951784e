"""What a run measures on held-out tiles, for any number of ranks."""

from dataclasses import replace

import pytest
import torch

from data.errors import InputError
from data.shards.writer import write_shards
from data.tiles.regions import RegionTable
from engine.config.settings import EvaluateSettings, Settings
from engine.evaluate.features import ModelFeatures, combined, extract, joined
from engine.evaluate.figures import effective_rank
from engine.evaluate.held_out import (
    FEATURES,
    KNN_KEY,
    NEIGHBOURS,
    RANK_KEY,
    HeldOut,
    summary,
)
from models.features import FUSED
from models.initialise import initialise
from models.pretraining.model import Pretraining
from tests.unit.engine.evaluate.test_features import SPEC
from tests.unit.engine.evaluate.test_knn import plain_vote
from tests.unit.tiles import SETTINGS, make_tile

TILES = 7
NO_REGIONS = RegionTable(())


@pytest.fixture(scope="module")
def trunk():
    model = Pretraining(SPEC)
    initialise(model, 0)
    return model.eval().trunk


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held-out")
    tiles = [make_tile(f"t{number}", number, cells=4, clouds=0.0) for number in range(TILES)]
    for number, tile in enumerate(tiles):
        tile.lon = 3.0 * number  # a region each
        tile.arrays["labels"][:16] = 3 * (number % 2)
    write_shards(tiles, folder / "shards")
    (folder / "labels.csv").write_text("key,label\nt0,a\nt1,b\nt2,a\nt5,b\nt6,b\n")
    return folder


def settings_of(folder, **changes) -> Settings:
    evaluate = EvaluateSettings(every=2, shards=str(folder / "shards"), **changes)
    return Settings(data=SETTINGS, model=SPEC, evaluate=evaluate)


def opened(folder, rank: int = 0, world_size: int = 1, **changes) -> HeldOut:
    settings = settings_of(folder, **changes)
    return HeldOut.open(settings, NO_REGIONS, rank=rank, world_size=world_size)


@pytest.mark.parametrize("labels", ["", "labels.csv"])
def test_the_figures_are_those_of_all_tiles(trunk, folder, labels):
    if labels:
        labels = str(folder / labels)
    held_out = opened(folder, labels=labels)
    figures = held_out.measure(trunk)
    extracted = extract(held_out.tiles, ModelFeatures(trunk, FEATURES, grid=2))
    vectors = extracted.vectors[FUSED]
    assert figures[RANK_KEY + FUSED] == pytest.approx(effective_rank(vectors))
    if labels:
        assert sorted(extracted.keys) == ["t0", "t1", "t2", "t5", "t6"]
        rows = vectors.numpy()
        classes = [{"t0": 0, "t2": 0}.get(key, 1) for key in extracted.keys]
        groups = list(range(5))
    else:
        rows = extracted.cells[FUSED].flatten(0, 2).numpy()
        classes = extracted.labels.flatten().tolist()
        groups = torch.arange(TILES).repeat_interleave(4).tolist()
        kept = [number for number in range(len(classes)) if classes[number] >= 0]
        rows = rows[kept]
        groups = [groups[number] for number in kept]
        classes = [classes[number] for number in kept]
    right = []
    one_hot = torch.eye(8)[torch.tensor(classes)].numpy()
    for number in range(len(rows)):
        others = [other for other in range(len(rows)) if groups[other] != groups[number]]
        votes = plain_vote(rows, one_hot, rows[number], NEIGHBOURS, others)
        right.append(votes.argmax() == classes[number])
    if labels:
        assert figures[KNN_KEY + FUSED] == pytest.approx(sum(right) / len(right))
    else:  # the mean IoU of cells: right in all or in none is the same in both
        assert (figures[KNN_KEY + FUSED] == 1) == all(right)
        assert 0 <= figures[KNN_KEY + FUSED] <= 1
    assert "20-NN fused" in summary(figures)


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_ranks_see_all_tiles_in_equally_many_batches(trunk, folder, world_size):
    alone = opened(folder)
    expected = extract(alone.tiles, ModelFeatures(trunk, FEATURES, grid=2))
    parts = []
    counts = set()
    for rank in range(world_size):
        held_out = opened(folder, rank, world_size)
        counts.add(len(list(held_out.tiles)))
        parts.append(extract(held_out.tiles, ModelFeatures(trunk, FEATURES, grid=2)))
    assert len(counts) == 1
    together = joined(parts)
    order = [expected.keys.index(key) for key in together.keys]
    assert sorted(order) == list(range(TILES))
    assert torch.equal(together.labels, expected.labels[order])
    for feature in FEATURES:
        for ours, theirs in zip(combined(together, feature), combined(expected, feature)):
            torch.testing.assert_close(ours, theirs[order], atol=1e-4, rtol=1e-4)


def test_tiles_of_other_sensors_are_refused(folder):
    settings = settings_of(folder)
    landsat = replace(SPEC, modalities={"landsat": SPEC.modalities["ms"]})
    with pytest.raises(InputError, match=r"expected tiles with some of landsat, found hr, ms, sar"):
        HeldOut.open(replace(settings, model=landsat), NO_REGIONS, rank=0, world_size=1)


def test_every_without_shards_is_impossible():
    assert "expected held-out shards" in EvaluateSettings(every=5).problem()
    assert EvaluateSettings().problem() is None
