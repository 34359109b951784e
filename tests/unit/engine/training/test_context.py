"""Which samples the student reads without context, and the figures of the prototypes."""

import math
from types import SimpleNamespace

import pytest
import torch

from engine.training.context import ContextFigures, drop_context
from models.features import Views
from models.initialise import initialise
from models.skysense import SkySense
from tests.unit.models.count.counter import DENSE, SIZES, inputs

KEYS = [f"tile-{number}" for number in range(400)]


def reads(keys, *, step=3, share=0.5, seed=0):
    """Which samples of a batch read."""
    views = {"global": Views({}, {}, {}, torch.zeros(len(keys), dtype=torch.int64))}
    batch = SimpleNamespace(step=step, keys=keys)
    return drop_context(views, batch, share=share, seed=seed)["global"].reads_context


def test_the_choice_follows_from_seed_step_and_sample_alone():
    whole = reads(KEYS)
    assert torch.equal(torch.cat([reads(KEYS[:7]), reads(KEYS[7:])]), whole)  # other ranks
    assert torch.equal(reads(KEYS[::-1]), whole.flip(0))
    assert not torch.equal(reads(KEYS, step=4), whole)
    assert not torch.equal(reads(KEYS, seed=1), whole)


@pytest.mark.parametrize("share, least, most", [(0.0, 0, 0), (0.25, 70, 130), (1.0, 400, 400)])
def test_the_share_is_left_out(share, least, most):
    assert least <= int((~reads(KEYS, share=share)).sum()) <= most


def test_samples_that_do_not_read_have_no_context_and_move_the_prototypes():
    model = SkySense(DENSE)
    initialise(model, seed=0)
    views = inputs(DENSE, {"global": SIZES["global"]})
    whole = model(views)[0]["global"]
    width = DENSE.context.width
    batch = len(views["global"].region)
    views["global"].reads_context = torch.arange(batch) != 0
    found = model(views)[0]["global"]
    assert (found.maps["fused"][0, ..., -width:] == 0).all()
    assert (whole.maps["fused"][0, ..., -width:] != 0).any()
    assert torch.equal(found.maps["fused"][1:], whole.maps["fused"][1:])
    assert torch.equal(found.maps["fused"][..., :-width], whole.maps["fused"][..., :-width])
    assert torch.equal(found.query, whole.query)  # what moves the prototypes


def test_figures_are_means_over_the_ranks():
    figures = ContextFigures.of([4.0, 2.0, 12.0, 1.0, 8.0])
    assert figures == ContextFigures(cosine=0.5, rank=3.0, spread=0.125)
    nothing = ContextFigures.of([0.0] * 5)
    assert all(map(math.isnan, (nothing.cosine, nothing.rank, nothing.spread)))
