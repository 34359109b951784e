"""Features of whole tiles on small shards, against the model that downstream users call."""

import numpy as np
import pytest
import torch
from torch import Tensor

from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.storage.settings import StoreSettings
from engine.evaluate.features import (
    STAGE_3,
    STAGE_4,
    STAGES,
    UNNORMED,
    Extracted,
    ModelFeatures,
    combined,
    extract,
)
from engine.evaluate.run_input import run_tiles, view_input
from engine.evaluate.tiles import Tiles, majority
from models.features import FUSED, Features, pooled
from models.initialise import initialise
from models.pretrained.model import Pretrained
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


def tiles_of(dataset: ShardDataset, batch_size: int = 2) -> Tiles:
    inputs = view_input(SPEC, SETTINGS.views, dataset.regions)
    tiles = run_tiles(dataset, SPEC, inputs, limit=100)
    return Tiles(
        dataset=dataset,
        samples=tiles.samples,
        inputs=inputs,
        grid=tiles.grid,
        classes=tiles.classes,
        batch_size=batch_size,
    )


def extracted_of(model, dataset: ShardDataset, batch_size: int = 2) -> Extracted:
    tiles = tiles_of(dataset, batch_size)
    return extract(tiles, ModelFeatures(model.trunk, grid=tiles.grid))


def test_every_tile_is_seen_once_and_absent_sensors_are_zero(model, folder):
    dataset = ShardDataset.open(folder)
    extracted = extracted_of(model, dataset)
    assert extracted.keys == dataset.keys()
    at = extracted.keys.index
    stage = f"ms, {STAGE_4}"
    assert not extracted.present[stage][at("c")]
    assert not extracted.vectors[stage][at("c")].any()
    assert not extracted.present[f"hr, {STAGE_3}"][at("d")]
    assert extracted.present[FUSED].all()
    assert extracted.vectors[FUSED].shape == (5, SPEC.fused_width)
    assert extracted.cells[FUSED].shape == (5, 2, 2, SPEC.fused_width)
    assert (extracted.labels[at("e")] == -1).all()
    assert set(extracted.labels[at("b")].flatten().tolist()) <= {-1, 0, 3, 7}


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_features_do_not_depend_on_the_batches(model, folder, batch_size):
    dataset = ShardDataset.open(folder)
    extracted = extracted_of(model, dataset)
    other = extracted_of(model, dataset, batch_size)
    assert other.keys == extracted.keys
    assert torch.equal(other.labels, extracted.labels)
    for name, vectors in extracted.vectors.items():
        torch.testing.assert_close(other.vectors[name], vectors, atol=1e-4, rtol=1e-4)


def test_features_are_those_of_the_downstream_model(model, folder):
    dataset = ShardDataset.open(folder)
    (batch,) = tiles_of(dataset, batch_size=5)
    described = ModelFeatures(model.trunk, grid=2)(batch)
    with torch.no_grad():
        maps = Pretrained(model.trunk)(
            batch.images, batch.days, valid=batch.valid, region=batch.region, grid=(2, 2)
        )
    for name in SPEC.modalities:
        close(described.vectors[f"{name}, {STAGE_4}"], maps.vectors[name])
        unnormed = described_maps(model, batch)[f"{name}, {UNNORMED}"]
        close(model.trunk.backbone.norm(unnormed).detach().movedim(-1, 2), maps.pyramid[name][3])
    close(described.vectors[FUSED], maps.vectors[FUSED])
    close(described.cells[FUSED].movedim(-1, 1), maps.fused)
    stage_3 = described_maps(model, batch)[f"hr, {STAGE_3}"]
    close(stage_3.movedim(-1, 2), maps.pyramid["hr"][2])


def described_maps(model, batch) -> dict[str, Tensor]:
    """The maps of all features, B T h w D."""
    features = (STAGE_3, STAGE_4, UNNORMED, FUSED)
    maps = ModelFeatures(model.trunk, features).maps(batch)
    return {name: feature.values for name, (feature,) in maps.items()}


def test_deviations_are_those_of_the_valid_cells(model, folder):
    dataset = ShardDataset.open(folder)
    (batch,) = tiles_of(dataset, batch_size=5)
    name = f"ms, {STAGE_4}"
    describe = ModelFeatures(model.trunk, (STAGE_4,), deviation=True)
    (maps,) = describe.maps(batch)[name]
    vectors = describe(batch).vectors[name].numpy()
    assert 0 < maps.valid.float().mean() < 1
    for tile, vector in enumerate(vectors):
        cells = maps.values[tile][maps.valid[tile]].double().numpy()  # n D
        if len(cells) == 0:
            assert not vector.any()
            continue
        halves = [cells.mean(0), cells.std(0)]
        expected = np.concatenate([half / np.linalg.norm(half) for half in halves])
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_stages_stand_side_by_side(model, folder):
    dataset = ShardDataset.open(folder)
    (batch,) = tiles_of(dataset, batch_size=5)
    described = ModelFeatures(model.trunk, (STAGES, STAGE_3), grid=2)(batch)
    widths = SPEC.widths
    together = described.vectors[f"hr, {STAGES}"].split(widths, dim=1)
    alone = torch.nn.functional.normalize(described.vectors[f"hr, {STAGE_3}"], dim=1)
    close(together[2], alone)
    present = described.present[f"hr, {STAGES}"].float()
    for part in together:
        close(part.norm(dim=1), present)
    assert described.cells[f"hr, {STAGES}"].shape == (5, 2, 2, sum(widths))


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_several_sensors_stand_side_by_side_with_equal_weight(model, folder):
    extracted = extracted_of(model, ShardDataset.open(folder))
    vectors, cells = combined(extracted, STAGE_4)
    assert vectors.shape == (5, 3 * SPEC.widths[-1])
    assert cells.shape == (5, 2, 2, 3 * SPEC.widths[-1])
    lengths = vectors.unflatten(1, (3, -1)).norm(dim=2)
    present = [extracted.present[f"{name}, {STAGE_4}"] for name in SPEC.modalities]
    close(lengths, torch.stack(present, 1).float())
    assert combined(extracted, FUSED)[0] is extracted.vectors[FUSED]
    assert combined(extracted, "stage5") == (None, None)


def test_labels_where_nothing_was_seen_do_not_count(model, tmp_path):
    tile = make_tile("half", 1, cells=4, modalities=("hr",), clouds=0.0)
    tile.valid["hr"][0, :, :2] = False  # the left half is without data
    tile.arrays["labels"][:] = 3
    write_shards([tile], tmp_path)
    extracted = extracted_of(model, ShardDataset.open(tmp_path, StoreSettings(attempts=1)))
    assert extracted.labels[0].tolist() == [[-1, 3], [-1, 3]]


def test_a_tile_that_cannot_be_read_is_left_out_with_its_reason(model, folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    whole = ShardDataset.open(tmp_path)
    number = whole.keys().index("b")
    broken = whole.entry(number)
    with open(tmp_path / "shard-000000.tar", "r+b") as tar:
        tar.seek(broken.members["hr"].offset)
        tar.write(bytes(64))
    extracted = extracted_of(model, ShardDataset.open(tmp_path, StoreSettings(attempts=1)))
    assert sorted(extracted.keys) == ["a", "c", "d", "e"]
    assert list(extracted.problems) == [number]
    assert "'b'" in extracted.problems[number]
    assert len(extracted.vectors[FUSED]) == 4
    for file in tmp_path.glob("*.tar"):
        file.write_bytes(bytes(file.stat().st_size))
    nothing = extracted_of(model, ShardDataset.open(tmp_path, StoreSettings(attempts=1)))
    assert len(nothing.problems) == 5
    assert nothing.vectors[FUSED].shape == (0, SPEC.fused_width)
