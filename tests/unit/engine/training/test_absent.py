"""Absent pixels influence nothing: not the losses, not one gradient, whatever stands in them."""

import copy

import pytest
import torch

from data.shards.dataset import ShardDataset
from data.stream.batches import open_stream
from engine.config.load import load
from engine.training.loss_terms import TOTAL
from engine.training.objective import hide_frames, to_views
from models.reducer import Reducer
from tests.commands import TINY
from tests.unit.objectives import build_objective

BATCH = 8


@pytest.fixture(scope="module")
def parts(shards):
    """An objective with its models, and a batch in which each modality is absent somewhere."""
    settings = load(
        TINY,
        [
            f"skysense.data.shards={shards}",
            "skysense.ep_size=1",
            "skysense.loss.koleo=0.1",
            f"train_batch_size={BATCH}",
        ],
        world_size=1,
    ).settings
    dataset = ShardDataset.open(shards)
    objective = build_objective(settings, dataset)
    for batch in open_stream(dataset, settings.data, seed=0, batch_size=BATCH, steps=range(20)):
        present = [valid.flatten(1).any(1) for valid in batch.views["global"].valid.values()]  # B
        if not any(samples.all() for samples in present):
            return objective, batch
    raise AssertionError("no batch lacks each modality somewhere; the bundled samples should")


def outcome(objective, batch):
    """Loss terms with their total, gradients, and what the prototypes would become."""
    student = objective.student
    student.zero_grad()
    views = to_views(batch, torch.device("cpu"))
    with torch.no_grad():
        targets = objective.teacher(views)
    outputs = student(hide_frames(views, batch))
    losses = objective(outputs, targets, batch, temperature=0.05)
    losses.total.backward()
    features = outputs.features["global"]
    context = copy.deepcopy(student.trunk.context)
    context.update(
        features.query.detach().flatten(1, 3),
        features.valid["fused"].flatten(1, 4),
        outputs.region,
        reducer=Reducer(),
    )
    gradients = {}
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.clone()
    return {**losses.terms, TOTAL: losses.total}, gradients, context.prototypes


@pytest.mark.parametrize("fill", [1e3, float("nan")])
def test_what_stands_in_absent_pixels_moves_nothing(parts, fill):
    objective, batch = parts
    terms, gradients, moved = outcome(objective, batch)
    kept = {size: dict(views.images) for size, views in batch.views.items()}
    changed = 0
    try:
        for views in batch.views.values():
            for name, image in views.images.items():
                absent = ~views.valid[name].unsqueeze(3)  # B V T 1 H W
                changed += int(absent.sum())
                views.images[name] = image.masked_fill(absent, fill)
        other_terms, other_gradients, other_moved = outcome(objective, batch)
    finally:
        for size, images in kept.items():
            batch.views[size].images = images
    assert changed > 1000
    for name, value in terms.items():
        assert torch.equal(value, other_terms[name]), name
    assert gradients.keys() == other_gradients.keys()
    for name, value in gradients.items():
        assert torch.equal(value, other_gradients[name]), name
    assert torch.equal(moved, other_moved)


def test_present_pixels_do_move_the_losses(parts):
    objective, batch = parts
    terms, _, _ = outcome(objective, batch)
    for modality in ("hr", "ms", "sar"):
        image = batch.views["global"].images[modality]
        present = batch.views["global"].valid[modality].unsqueeze(3)  # B V T 1 H W
        batch.views["global"].images[modality] = torch.where(present, image.flip(-1), image)
        other, _, _ = outcome(objective, batch)
        batch.views["global"].images[modality] = image
        assert other[f"mgcl/{modality}/image"] != terms[f"mgcl/{modality}/image"]
        assert other["mgcl/fused/image"] != terms["mgcl/fused/image"]


def test_the_teacher_sees_what_the_student_does_not(parts):
    _, batch = parts
    views = to_views(batch, torch.device("cpu"))
    hidden = hide_frames(views, batch)
    for size, inputs in views.items():
        for name, mask in inputs.valid.items():
            seen = batch.views[size].seen[name]
            assert torch.equal(hidden[size].valid[name], mask & seen[..., None, None])
            assert torch.equal(mask, batch.views[size].valid[name])
    less = [(views[s].valid[n] != hidden[s].valid[n]).any() for s in views for n in ("ms", "sar")]
    assert any(less)


def test_a_sensor_that_the_student_never_sees_leaves_its_terms(parts):
    objective, batch = parts
    kept = {size: views.seen["sar"] for size, views in batch.views.items()}
    for views in batch.views.values():
        views.seen["sar"] = torch.zeros_like(views.seen["sar"])
    terms, gradients, _ = outcome(objective, batch)
    for size, seen in kept.items():
        batch.views[size].seen["sar"] = seen
    for level in ("pixel", "object", "image"):
        assert terms[f"mgcl/sar/{level}"] == 0 and terms[f"mgcl/fused/{level}"] > 0
    assert not any(x.any() for name, x in gradients.items() if name.startswith("heads.sar"))


def test_dates_of_absent_frames_move_nothing(parts):
    objective, batch = parts
    terms, gradients, _ = outcome(objective, batch)
    kept = {size: dict(views.days) for size, views in batch.views.items()}
    for size, views in batch.views.items():
        for name, days in kept[size].items():
            frames = views.valid[name].flatten(3).any(3)  # B V T
            views.days[name] = torch.where(frames, days, 200)
    other_terms, other_gradients, _ = outcome(objective, batch)
    for size, days_of_size in kept.items():
        batch.views[size].days = days_of_size
    assert all(torch.equal(value, other_terms[name]) for name, value in terms.items())
    assert all(torch.equal(value, other_gradients[name]) for name, value in gradients.items())
