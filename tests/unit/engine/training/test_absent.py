"""Absent pixels influence nothing: not the losses, not one gradient, whatever stands in them."""

import pytest
import torch

from data.shards.dataset import ShardDataset
from data.stream.batches import open_stream
from engine.config.load import load
from engine.training.build import build_models, embed_classes, share_context
from engine.training.objective import Objective, to_views
from models.reducer import Reducer
from tests.commands import TINY

BATCH = 8


@pytest.fixture(scope="module")
def parts(shards):
    """Student, teacher, objective and a batch in which each modality is absent somewhere."""
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
    student, teacher = build_models(settings, Reducer())
    share_context(student, teacher)
    text, _ = embed_classes(settings, dataset)
    objective = Objective(settings.loss, student, teacher, text, Reducer())
    for batch in open_stream(dataset, settings.data, seed=0, batch_size=BATCH, steps=range(20)):
        lacks = [
            ~valid.flatten(1).any(1) for valid in batch.views["global"].valid.values()
        ]  # B each
        if all(lack.any() for lack in lacks):
            return student, teacher, objective, batch
    raise AssertionError("no batch lacks each modality somewhere; the bundled samples should")


def outcome(student, teacher, objective, batch):
    """Loss terms, gradients and what the prototypes would become."""
    student.zero_grad()
    views = to_views(batch, torch.device("cpu"))
    with torch.no_grad():
        targets = teacher(views)
    outputs = student(views)
    losses = objective(outputs, targets, batch, 0.05)
    losses.total.backward()
    found = outputs.features["global"]
    moved = student.trunk.context.assignments(
        found.query.flatten(1, 3), found.valid["fused"].flatten(1, 4), outputs.region
    )
    gradients = {
        name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None
    }
    return losses.terms, gradients, moved.detach()


def pixels(valid, image):
    """(B, V, T, n, n) -> the mask of the image's pixels (B, V, T, 1, H, W)."""
    scale = image.shape[-1] // valid.shape[-1]
    return valid.repeat_interleave(scale, -1).repeat_interleave(scale, -2).unsqueeze(3)


@pytest.mark.parametrize("fill", [1e3, float("nan")])
def test_what_stands_in_absent_pixels_moves_nothing(parts, fill):
    student, teacher, objective, batch = parts
    terms, gradients, moved = outcome(student, teacher, objective, batch)
    kept = {size: dict(views.images) for size, views in batch.views.items()}
    changed = 0
    try:
        for views in batch.views.values():
            for name, image in views.images.items():
                absent = ~pixels(views.valid[name], image)
                changed += int(absent.sum())
                views.images[name] = image.masked_fill(absent, fill)
        other_terms, other_gradients, other_moved = outcome(student, teacher, objective, batch)
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
    student, teacher, objective, batch = parts
    terms, _, _ = outcome(student, teacher, objective, batch)
    for modality in ("hr", "ms", "sar"):
        image = batch.views["global"].images[modality]
        present = pixels(batch.views["global"].valid[modality], image)
        batch.views["global"].images[modality] = torch.where(present, image.flip(-1), image)
        other, _, _ = outcome(student, teacher, objective, batch)
        batch.views["global"].images[modality] = image
        assert other[f"mgcl/{modality}/image"] != terms[f"mgcl/{modality}/image"]
        assert other["mgcl/fused/image"] != terms["mgcl/fused/image"]


def test_dates_of_absent_frames_move_nothing(parts):
    student, teacher, objective, batch = parts
    terms, gradients, _ = outcome(student, teacher, objective, batch)
    kept = dict(batch.days)
    for name, days in kept.items():
        frames = batch.views["global"].valid[name].flatten(3).any(3).any(1) | batch.views[
            "local"
        ].valid[name].flatten(3).any(3).any(1)  # B T
        batch.days[name] = torch.where(frames, days, 200)
    other_terms, other_gradients, _ = outcome(student, teacher, objective, batch)
    batch.days.update(kept)
    assert all(torch.equal(value, other_terms[name]) for name, value in terms.items())
    assert all(torch.equal(value, other_gradients[name]) for name, value in gradients.items())
