"""Extraction of features on small shards."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.stream.batches import open_stream
from data.stream.settings import GLOBAL, AugmentSettings
from engine.evaluate.features import extract, majority, undistorted, whole_tiles
from models.features import Features, pooled
from models.initialise import initialise
from models.pretraining.model import Pretraining
from models.spec import ContextSpec, FusionSpec, HeadSpec, ModalitySpec, ModelSpec, MoESpec
from tests.unit.tiles import SETTINGS, make_tile

SPEC = ModelSpec(
    modalities={
        "hr": ModalitySpec(3, 1, (True,) * 3, (8, 4)),
        "ms": ModalitySpec(10, 3, (False,) * 3, (1, 1)),
        "sar": ModalitySpec(2, 2, (False,) * 3, (1, 1)),
    },
    widths=(8, 16, 32, 64),
    depths=(1, 1, 1, 1),
    head_dim=8,
    window=4,
    prompts=(0, 0, 1, 1),
    moe=MoESpec(blocks=(2,), experts=2),
    fusion=FusionSpec(width=16, layers=1, heads=2, cells_per_token=2),
    context=ContextSpec(regions=8, prototypes=2, width=8),
    head=HeadSpec(2, 16, 8, 16),
    queries=2,
    text_width=8,
)


@pytest.fixture(scope="module")
def model():
    model = Pretraining(SPEC)
    initialise(model, 0)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five tiles: two with everything, one optical, one series, one without labels."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(
        [
            make_tile("a", 1),
            make_tile("b", 2),
            make_tile("c", 3, modalities=("hr",)),
            make_tile("d", 4, modalities=("ms", "sar")),
            make_tile("e", 5, labels=False, clouds=0.0),
        ],
        folder,
    )
    return folder


def test_majority_counts_labelled_pixels():
    labels = np.random.default_rng(0).integers(-1, 5, (2, 12, 12))
    labels[0, :4, :4] = -1  # nothing labelled in the first cell
    found = majority(torch.from_numpy(labels), side=3, classes=5).numpy()
    for b, i, j in np.ndindex(2, 3, 3):
        part = labels[b, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        counts = np.bincount(part[part >= 0], minlength=5)
        assert found[b, i, j] == (counts.argmax() if counts.sum() else -1)
    assert found[0, 0, 0] == -1


def test_pooled_ignores_invalid_cells():
    maps = torch.randn(2, 1, 3, 2, 2, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(2, 1, 3, 2, 2, generator=torch.Generator().manual_seed(1)) > 0.5
    valid[1] = False
    maps[~valid] = torch.nan
    vector, seen = pooled(Features({"ms": maps}, {"ms": valid}, None), "ms")
    torch.testing.assert_close(vector[0], maps[0][valid[0]].mean(0))
    assert seen.tolist() == [True, False] and not vector[1].any()


def test_undistorted_views_are_whole_upright_tiles(folder):
    dataset = ShardDataset.open(folder)
    settings = replace(
        SETTINGS, augment=AugmentSettings(grey_probability=1.0, solarise_probability=1.0), workers=2
    )
    still = undistorted(settings, zoom=2)
    assert still.workers == 0
    for batch in open_stream(dataset, still, seed=5, batch_size=1, steps=range(len(dataset))):
        cells = dataset.entry(dataset.keys().index(batch.keys[0])).cells
        for views in batch.views.values():
            expected = torch.tensor([[cells, 0, 0], [0, cells, 0]], dtype=torch.float64)
            assert (views.affine == expected).all()
        first, second = batch.views[GLOBAL].images["hr"][0].unbind(0)
        assert torch.equal(first, second)  # nothing random is left
        views = whole_tiles(batch)
        assert views.images["ms"].shape == (1, 1, 3, 10, 8, 8) and views.valid["ms"].shape == (
            1,
            1,
            3,
            8,
            8,
        )


def test_extract_sees_every_sample_once(model, folder):
    dataset = ShardDataset.open(folder)
    found = extract(model, dataset, SETTINGS, classes=len(dataset.classes))
    assert sorted(found.keys) == ["a", "b", "c", "d", "e"]
    at = found.keys.index
    assert (
        not found.present["ms"][at("c")]
        and not found.present["hr"][at("d")]
        and found.present["fused"].all()
    )
    assert found.vectors["fused"].shape == (5, SPEC.fused_width) and found.cells.shape == (
        5,
        4,
        SPEC.fused_width,
    )
    assert (found.labels[at("e")] == -1).all() and (found.labels[at("a")] >= -1).all()
    assert set(found.labels[at("b")].tolist()) <= {-1, 0, 3, 7}
    assert not found.vectors["ms"][at("c")].any()  # what is missing has zeros, not noise
    again = extract(
        model, dataset, replace(SETTINGS, augment=AugmentSettings(date_jitter_days=9)), classes=39
    )
    assert torch.equal(found.cells, again.cells)
    assert len(extract(model, dataset, SETTINGS, classes=39, limit=2).keys) == 2


def test_labels_where_nothing_was_seen_do_not_count(model, tmp_path):
    tile = make_tile("half", 1, cells=4, modalities=("hr",), clouds=0.0)
    tile.valid["hr"][0, :, :2] = False  # the left half is without data
    tile.arrays["labels"][:] = 3
    write_shards([tile], tmp_path)
    found = extract(model, ShardDataset.open(tmp_path), SETTINGS, classes=39)
    assert found.labels.view(2, 2).tolist() == [[-1, 3], [-1, 3]]


def test_a_bad_sample_is_left_out_not_doubled(model, folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = ShardDataset.open(tmp_path)
    broken = whole.entry(whole.keys().index("b"))
    with open(tmp_path / "shard-000000.tar", "r+b") as tar:
        tar.seek(broken.members["hr"].offset)
        tar.write(bytes(64))
    dataset = ShardDataset.open(tmp_path)
    with pytest.raises(InputError, match="'b'"):
        extract(model, dataset, SETTINGS, classes=39)
    found = extract(model, dataset, replace(SETTINGS, max_bad_samples=1), classes=39)
    assert sorted(found.keys) == ["a", "c", "d", "e"]
