"""First values: complete, and the same whatever the order, the type or the place."""

import copy
import math

import pytest
import torch
from torch import nn

from models.backbone.feed_forward import FeedForward
from models.backbone.position import Positions, resize
from models.backbone.swin_v2 import SwinBlock
from models.backbone.tokenizer import Tokenizer
from models.errors import ModelError
from models.initialise import BOUND, initialise
from models.packing import Group, Layout
from models.spec import ModelSpec


class Odd(nn.Module):
    """Parameters that no standard layer owns, in containers and in a buffer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(300, 200)
        self.norm = nn.LayerNorm(4)
        self.day = nn.Embedding(7, 3)
        self.attention = nn.MultiheadAttention(8, 2)
        self.tables = nn.ParameterDict(
            {"a": nn.Parameter(torch.zeros(2)), "b": nn.Parameter(torch.zeros(2))}
        )
        self.token = nn.Parameter(torch.zeros(5))
        self.register_buffer("prototypes", torch.full((3,), torch.nan))
        self.register_buffer("centre", torch.ones(3))
        self.register_buffer("scratch", torch.full((3,), torch.nan), persistent=False)
        self.asked = []

    def init_parameter(self, name, tensor, generator):
        assert tensor.isnan().all() and tensor.dtype == torch.float32
        self.asked.append(name)
        tensor.normal_(generator=generator)


def test_rules():
    module = Odd()
    initialise(module, seed=0)
    assert sorted(module.asked) == ["prototypes", "tables.a", "tables.b", "token"]
    weight = module.linear.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.03) and weight.mean().abs() < 3e-4
    assert weight.abs().max() <= BOUND
    assert not module.linear.bias.any() and not module.attention.in_proj_bias.any()
    assert module.attention.in_proj_weight.std() > 0.01 and module.day.weight.std() > 0.01
    assert module.norm.weight.eq(1).all() and not module.norm.bias.any()
    assert module.centre.eq(1).all() and module.scratch.isnan().all()
    assert not torch.equal(module.tables["a"], module.tables["b"])


def test_matrices_can_suit_their_inputs():
    """Outputs then have the variance of the inputs; all else has the values that it always has."""
    usual = nn.ModuleList([Odd(), nn.Conv2d(10, 30, 6), Tokenizer(3, 16, 4)])
    suited = copy.deepcopy(usual)
    initialise(usual, seed=0)
    initialise(suited, seed=0, std=None)
    inputs = {"0.linear.weight": 300, "0.attention.in_proj_weight": 8, "1.weight": 360}
    inputs |= {"0.attention.out_proj.weight": 8, "2.projection.weight": 48}
    expected = dict(usual.named_parameters())
    for name, parameter in suited.named_parameters():
        if name in inputs:
            assert parameter.std().item() == pytest.approx(inputs[name] ** -0.5, rel=0.15), name
        else:
            assert torch.equal(parameter, expected[name]), name


def test_the_specification_says_the_spread():
    spec = {"widths": (16, 32, 64, 128), "head_dim": 16, "moe": None, "context": None}
    assert ModelSpec.skysense_v2().variant(**spec).initial_std == 0.02
    with pytest.raises(ModelError, match="model.initial_std: expected a number above 0, or null"):
        ModelSpec.skysense_v2().variant(**spec, initial_std=0.0)


def test_global_random_state_has_no_part():
    module = Odd()  # constructing torch layers does draw
    before = torch.get_rng_state()
    initialise(module, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_depend_on_name_and_seed_only():
    first = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(5, 6)})
    second = nn.ModuleDict(
        {"b": nn.Linear(5, 6), "c": nn.Linear(9, 9), "a": nn.Linear(3, 4)}
    ).double()
    third = nn.ModuleDict({"b": nn.Linear(5, 6)})
    initialise(first, seed=7)
    initialise(second, seed=7)
    initialise(third, seed=8)
    for name in ("a", "b"):
        assert torch.equal(first[name].weight, second[name].weight.float())
    assert not torch.equal(first["b"].weight, third["b"].weight)


def test_spread_experts_get_the_values_they_have_in_one_place():
    whole = nn.ModuleList(nn.Linear(3, 4) for _ in range(4))
    initialise(whole, seed=1)
    for rank in range(2):
        local = nn.ModuleList(nn.Linear(3, 4) for _ in range(2))

        def canonical(name, first=2 * rank):
            return f"{int(name[0]) + first}{name[1:]}"

        initialise(local, seed=1, canonical=canonical)
        assert all(
            torch.equal(expert.weight, whole[2 * rank + i].weight) for i, expert in enumerate(local)
        )


def test_forgotten_parameters_show():
    class Forgotten(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(ModelError, match="rule for 0.scale.*Forgotten"):
        initialise(nn.Sequential(Forgotten()), seed=0)

    class Lazy(Forgotten):
        def init_parameter(self, name, tensor, generator):
            tensor[0] = 1

    with pytest.raises(ModelError, match="finite values in 0.scale"):
        initialise(nn.Sequential(Lazy()), seed=0)


def test_swin_block_starts_as_identity():
    block = SwinBlock(16, FeedForward(16, 64), head_dim=8, window=4, shift=0)
    initialise(block, seed=0)
    assert torch.allclose(block.attention.logit_scale, torch.full((2,), math.log(10)))
    assert not block.attention.q_bias.any() and not block.attention.v_bias.any()
    x = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    y, _ = block(x, Layout((Group("hr", "global", 1, 4, 4),)), torch.ones(16, dtype=torch.bool))
    assert torch.equal(x, y)


def test_position_tables():
    modalities = ModelSpec().modalities
    positions = Positions(modalities, stage=1, width=8)
    initialise(positions, seed=0)
    assert {name: tuple(t.shape) for name, t in positions.tables.items()} == {
        "14x7": (7, 7, 8),
        "16x16": (16, 16, 8),
    }
    layout = Layout(
        (
            Group("hr", "global", 1, 7, 7),
            Group("hr", "local", 2, 3, 5),
            Group("ms", "global", 2, 16, 16),
            Group("sar", "global", 1, 20, 4),
        )
    )
    added = layout.split(positions(torch.zeros(layout.tokens, 8), layout))
    hr, sentinel = positions.tables["14x7"], positions.tables["16x16"]
    assert torch.equal(added[0], hr.view(1, 49, 8)) and torch.equal(
        added[2][1], sentinel.view(256, 8)
    )
    for part, table, group in (
        (added[1][1], hr, layout.groups[1]),
        (added[3][0], sentinel, layout.groups[3]),
    ):
        wanted = nn.functional.interpolate(
            table.permute(2, 0, 1)[None],
            (group.height, group.width),
            mode="bicubic",
            antialias=True,
        )
        torch.testing.assert_close(
            part.view(group.height, group.width, 8), wanted[0].permute(1, 2, 0)
        )


def test_resizing_keeps_a_constant_table():
    table = torch.full((7, 7, 2), 3.0)
    for height, width in ((1, 1), (2, 32), (14, 5)):
        torch.testing.assert_close(
            resize(table, height, width), torch.full((height, width, 2), 3.0)
        )
