"""How many tokens an expert serves, and which ones it drops."""

import pytest
import torch

from models.moe.gate import capacity_limit
from models.packing import Group, Layout
from models.spec import MoESpec
from tests.unit.layouts import run_moe
from tests.unit.models.moe.by_loops import (
    PATHS,
    TIGHT,
    build,
    tokens,
)


@PATHS
def test_a_full_expert_serves_the_first_of_equal_tokens_and_eval_never_drops(path):
    moe = build(path, factor=1.0, min_capacity=1)
    x, mask = tokens(16, absent=(0, 5))
    x = x[:1].detach().expand(16, -1).clone()  # all tokens want the same expert
    y, routing = run_moe(moe, x, mask)
    served = mask.nonzero()[:4, 0]  # ceil(1.0 x 16 / 4)
    assert y.abs().sum(1).nonzero()[:, 0].tolist() == served.tolist()
    assert routing.dropped.nonzero()[:, 0].tolist() == mask.nonzero()[4:, 0].tolist()
    assert routing.expert[mask].unique().numel() == 1 and (routing.expert[~mask] == -1).all()
    y, routing = run_moe(moe.eval(), x, mask)
    assert not routing.dropped.any() and (y.abs().sum(1) > 0).equal(mask)
    assert routing.balance.item() == 0


@PATHS
def test_places_on_the_packed_axis_do_not_decide_what_is_dropped(path):
    """Global views come first on the axis, local ones last: both must lose alike."""
    moe = build(path, factor=0.8)
    x, mask = tokens(200, absent=(3, 150))
    y, routing = run_moe(moe, x, mask)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    moved, rerouted = run_moe(moe, x[order], mask[order])
    torch.testing.assert_close(moved, y[order], **TIGHT)
    assert rerouted.dropped.equal(routing.dropped[order])
    assert routing.dropped.sum() >= 200 - 0.8 * 200 - 2
    gate = moe.layer.deepspeed_moe.gate.wg.weight
    value = torch.softmax(x @ gate.T, 1).max(1).values
    for expert in range(4):
        own = routing.expert == expert
        if (own & routing.dropped).any():
            assert value[own & routing.dropped].max() < value[own & ~routing.dropped].min()


def unsure_local_views():
    """300 tokens: global views first, local ones last, of which the gate is less sure; their table
    and mask."""
    layout = Layout(
        (
            Group("hr", "global", 2, height=9, width=10),
            Group("ms", "global", 30, height=1, width=1),
            Group("hr", "local", 80, height=1, width=1),
            Group("ms", "local", 10, height=1, width=1),
        )
    )
    x, mask = tokens(300, absent=range(170, 180))
    size = torch.ones(300, dtype=torch.float64)
    size[210:] = 0.3
    return x * size[:, None], layout, mask


@PATHS
def test_a_full_expert_drops_the_same_share_of_every_sensor_and_view_size(path):
    moe = build(path, factor=0.7)
    x, layout, mask = unsure_local_views()
    routing = moe(x, layout, mask)[1]
    capacity = capacity_limit(300, moe.spec)
    full = 0
    for expert in range(4):
        own = routing.expert == expert
        wanted = int(own.sum())
        lost = max(0, wanted - capacity)
        full += lost > 0
        assert routing.dropped[own].sum() == lost
        for part in zip(*(rows.split([180, 30, 80, 10]) for rows in (own, routing.dropped))):
            group, dropped = part
            assert abs((group & dropped).sum() - lost * group.sum() / wanted) <= 1
    assert full >= 2


@pytest.mark.parametrize(
    "number,factor,minimum,slots",
    [(64, 1.25, 4, 10), (65, 1.0, 4, 9), (8, 1.0, 4, 4), (3, 1.0, 4, 3), (1, 0.1, 0, 1)],
)
def test_capacity_formula(number, factor, minimum, slots):
    assert (
        capacity_limit(number, MoESpec(experts=8, capacity_factor=factor, min_capacity=minimum))
        == slots
    )
