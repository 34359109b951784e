"""Both probes on features whose worth is known."""

import pytest
import torch

from engine.evaluate.items import parts, tile_items
from engine.evaluate.probing import KNN, STANDARDISED, Candidate, probe

CLASSES = ["a", "b", "c"]


def items_of(count: int):
    names = [(CLASSES[number % 3],) for number in range(count)]
    groups = [str(number) for number in range(count)]
    splits = [("train", "validation", "test")[number // 3 % 3] for number in range(count)]
    return tile_items(names, CLASSES, several=False, groups=groups, splits=splits)


@pytest.mark.parametrize("noise, standardised", [(1000.0, True), (0.01, False)])
def test_validation_chooses_the_units_of_the_features(noise, standardised):
    """A feature of large numbers without meaning hides the others, until it is divided by its
    deviation; where all that varies little is noise, the division brings it forward."""
    items = items_of(900)
    (divided,) = parts(items, 0, folds=0)
    rng = torch.Generator().manual_seed(0)
    telling = items.targets + 0.4 * torch.randn(900, 3, generator=rng)
    count = 1 if standardised else 40
    blur = noise * torch.randn(900, count, generator=rng)
    features = torch.cat([telling, blur], 1)
    candidate = Candidate("x", lambda _: features)
    probed = probe(KNN, [candidate], items, divided, seed=0)
    assert probed.candidate == (f"x, {STANDARDISED}" if standardised else "x")
    truth = items.targets[divided.test].argmax(1)
    assert (probed.test.argmax(1) == truth).float().mean() > 0.8
