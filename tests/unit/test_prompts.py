"""Prompt tokens."""

import torch

from models.initialise import initialise
from models.packing import Group, Layout
from models.prompts import Prompts, drop_prefix
from models.spec import ModelSpec

LAYOUT = Layout((Group("sar", "global", 2, 2, 3), Group("hr", "global", 3, 1, 1), Group("sar", "local", 1, 1, 2)))


def test_projected_tokens_of_the_modality_stand_in_front_of_every_image():
    prompts = Prompts(("hr", "ms", "sar"), 8, 4).double()
    initialise(prompts, seed=0)
    x = torch.randn(LAYOUT.tokens, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, longer = prompts(x, LAYOUT)
    assert longer == LAYOUT.with_prefix(4)
    for before, after, group in zip(LAYOUT.split(x), longer.split(y), LAYOUT.groups):
        token = prompts.tokens[group.modality] @ prompts.projection.weight.T + prompts.projection.bias
        torch.testing.assert_close(after[:, :4], token.expand(group.images, 4, 8))
        assert torch.equal(after[:, 4:], before)
    back, layout = drop_prefix(y, longer)
    assert layout == LAYOUT and torch.equal(back, x)


def test_only_the_modalities_present_get_a_gradient_that_is_not_zero():
    prompts = Prompts(("hr", "ms", "sar"), 8, 4)
    initialise(prompts, seed=0)
    y, _ = prompts(torch.zeros(LAYOUT.tokens, 8), LAYOUT)
    y.sum().backward()
    assert {name: bool(token.grad.any()) for name, token in prompts.tokens.items()} == \
        {"hr": True, "ms": False, "sar": True}


def test_size_of_table_6():
    spec = ModelSpec()
    with torch.device("meta"):
        stages = [Prompts(tuple(spec.modalities), width, count)
                  for width, count in zip(spec.widths, spec.prompts) if count]
    size = sum(p.numel() for stage in stages for p in stage.parameters())
    assert 9.92e6 <= size <= 9.97e6
