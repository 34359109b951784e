"""Where the first value that is not finite arose: in the input, in a module, on which rank."""

import torch
from torch import nn

from data.stream.sample import Batch, ViewSet
from engine.training.trouble import INPUT, LOSSES, Trouble, describe, find_trouble, guilty, own_keys


class Spoiled(nn.Module):
    """Divides by zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 0


def batch(*bad: int) -> Batch:
    """Three samples, some with a pixel that is not a number."""
    images = torch.zeros(3, 1, 1, 2, 4, 4)
    images[list(bad), 0, 0, 1, 2, 3] = torch.nan
    empty = torch.zeros(3, 1)
    views = ViewSet(images={"ms": images}, valid={}, days={}, seen={}, labels=empty, affine=empty)
    return Batch(5, ["a", "b", "c"], {"global": views}, torch.zeros(3), [])


def look(middle: nn.Module, *bad: int, terms=None) -> Trouble:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(middle, nn.ReLU()), nn.Linear(4, 4))
    x = torch.ones(2, 4)
    trouble = find_trouble(model, lambda: model(x), batch(*bad), terms or {}, rank=0)
    assert not any(module._forward_hooks for module in model.modules())
    return trouble


def test_samples_of_a_bad_input_are_named():
    trouble = look(Spoiled(), 0, 2)
    assert (trouble.order, trouble.place, trouble.keys) == (0, INPUT, ["a", "c"])


def test_the_innermost_first_module_is_named_and_all_samples():
    trouble = look(Spoiled())
    assert (trouble.order, trouble.place, trouble.keys) == (2, "1.0", ["a", "b", "c"])


def test_losses_behind_finite_modules_are_named_by_their_terms():
    terms = {"ita": torch.tensor(1.0), "qsacl": torch.tensor(torch.inf)}
    trouble = look(nn.Identity(), terms=terms)
    assert (trouble.order, trouble.place, trouble.terms) == (None, LOSSES, ["qsacl"])
    [same] = guilty(trouble)
    assert same == trouble
    assert own_keys([trouble], 0) == ["a", "b", "c"]
    assert own_keys([trouble], 1) == []
    [line] = describe(5, [trouble])
    assert line == (
        f"step 6 is not finite, first on rank 0 on {trouble.host}, in the losses, "
        "samples a, b, c; loss terms qsacl"
    )
