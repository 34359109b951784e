"""Compiled regions: values and gradients of eager code, and one graph for all layouts."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from engine.config.load import load
from engine.errors import ConfigError
from models.initialise import initialise
from models.pretraining.compiled import compile_regions
from models.skysense import SkySense
from tests.commands import TINY
from tests.unit.models.test_recompute import SMALL, views

SPEC = SMALL.variant(moe=None, depths=(1, 1, 1, 1))
# view size -> pixels along a side of a view of ms, number of views
LAYOUTS = (
    {"global": (8, 2)},
    {"global": (8, 3), "local": (4, 4)},
    {"global": (16, 1), "local": (8, 5)},
)
GRAPHS = (
    4 + 2
)  # feed-forward networks of four widths; fusion layers with all tokens and with the first alone


def outcome(
    model: SkySense, layout: dict[str, tuple[int, int]], dtype=torch.float32
) -> list[torch.Tensor]:
    """Maps of all sizes and gradients of all weights."""
    model.zero_grad()
    inputs = {}
    for size, (side, count) in layout.items():
        inputs[size] = views(SPEC, {"hr": 4 * side, "ms": side}, count, dtype=dtype)
    features, _ = model(inputs)
    sum(found.maps["fused"].square().sum() for found in features.values()).backward()
    return [found.maps["fused"].detach() for found in features.values()] + [
        p.grad for p in model.parameters() if p.grad is not None
    ]


def test_values_are_those_of_eager_code_and_no_layout_is_compiled_anew():
    eager = SkySense(SPEC)
    initialise(eager, 1)
    for norm in (m for m in eager.modules() if type(m).__name__ == "BlockNorm"):
        torch.nn.init.constant_(norm.weight, 0.5)
    compiled, exact = copy.deepcopy(eager), copy.deepcopy(eager).double()
    torch._dynamo.reset()
    counters.clear()
    assert compile_regions(compiled) == 4 + SPEC.fusion.layers
    assert compiled.state_dict().keys() == eager.state_dict().keys()
    graphs = []
    for layout in LAYOUTS:
        found = (
            outcome(compiled, layout),
            outcome(eager, layout),
            outcome(exact, layout, torch.float64),
        )
        for mine, theirs, truth in zip(*found, strict=True):
            # sums in another order: as near to float64 as eager code, give or take its own rounding
            assert (mine - truth).norm() <= 10 * (theirs - truth).norm() + 1e-6 * truth.norm()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [GRAPHS] * len(LAYOUTS)
    assert not counters["graph_break"] and not counters["unimplemented"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["skysense.recompute=some"],
            "skysense.recompute: expected 'none', 'blocks', 'windows' or 'pointwise', found 'some'",
        ),
        (
            ["skysense.activation_checkpointing=true"],
            'skysense.activation_checkpointing: it is now skysense.recompute: write "blocks"',
        ),
        (
            [
                "skysense.recompute=pointwise",
                "skysense.compile=true",
            ],
            "skysense.recompute: 'pointwise' expected skysense.compile false",
        ),
        (["skysense.model.drop_path=1.0"], "model.drop_path: expected a share from 0 to below 1"),
    ],
)
def test_settings_that_cannot_be_together_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load(TINY, overrides, world_size=2)
