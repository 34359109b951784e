"""Blocks that run on a part of the images: what is left out is neither changed nor computed."""

from functools import partial
from itertools import combinations, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import recompute
from models.backbone.feed_forward import FeedForward
from models.backbone.stages import Backbone
from models.backbone.stochastic_depth import Draw, _Move, choose, images_kept, run_on_some, subset
from models.backbone.swin_v2 import SwinBlock
from models.backbone.transformer import TransformerBlock
from models.errors import ModelError
from models.initialise import initialise
from models.moe.layer import MoE
from models.moe.loads import expert_load
from models.packing import Group, Layout
from models.spec import ModalitySpec, ModelSpec, MoESpec

WIDTH = 16
GLOBAL = Layout((Group("ms", "global", 3, 2, 3, prefix=2), Group("hr", "local", 4, 4, 4, prefix=2)))
WINDOWS = GLOBAL.with_prefix(0)
BLOCKS = {
    "transformer": (partial(TransformerBlock, WIDTH, head_dim=8), GLOBAL),
    "last of its stage": (partial(TransformerBlock, WIDTH, head_dim=8, last=True), GLOBAL),
    "windows": (partial(SwinBlock, WIDTH, head_dim=8, window=2, shift=1), WINDOWS),
}


def make(name: str) -> tuple[nn.Module, Layout, torch.Tensor, torch.Tensor]:
    factory, layout = BLOCKS[name]
    block = factory(ffn=FeedForward(WIDTH, 32)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in block.parameters():  # a new window block would be the identity
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    x = torch.randn(layout.tokens, WIDTH, generator=generator, dtype=torch.float64)
    return block, layout, x, torch.ones(layout.tokens, dtype=torch.bool)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_mean_over_all_draws_is_the_full_output(name):
    block, layout, x, mask = make(name)
    full, _ = block(x, layout, mask)
    sums, draws = torch.zeros_like(full), 0
    for images in product(combinations(range(3), 2), combinations(range(4), 3)):
        chosen = [torch.tensor(numbers) for numbers in images]
        y, _ = run_on_some(block, x, layout, mask, images=chosen)
        sums, draws = sums + y, draws + 1
    assert draws == 12
    torch.testing.assert_close(sums / draws, full, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BLOCKS)
def test_images_that_are_left_out_pass_by_untouched_and_unseen(name):
    block, layout, x, mask = make(name)
    images = [torch.tensor([0, 2]), torch.tensor([1, 2])]
    seen = []

    def watched(x, layout, mask):
        seen.append(layout)
        return block(x, layout, mask)

    y, _ = run_on_some(watched, x, layout, mask, images=images)
    after = layout.with_prefix(0) if name == "last of its stage" else layout
    assert [group.images for group in seen[0].groups] == [2, 2]
    for out, part, chosen, group in zip(after.split(y), layout.split(x), images, layout.groups):
        part = part[:, -out.shape[1] :]
        others = [image for image in range(group.images) if image not in chosen]
        assert torch.equal(out[others], part[others])
        alone = Layout((Group("ms", "alone", 1, group.height, group.width, group.prefix),))
        for image in chosen.tolist():
            whole = layout.split(x)[layout.groups.index(group)][image]
            expected, _ = block(whole, alone, torch.ones(len(whole), dtype=torch.bool))
            scale = group.images / 2
            torch.testing.assert_close(out[image], part[image] + scale * (expected - part[image]))


def test_what_is_left_out_costs_nothing():
    layout = Layout((Group("ms", "global", 8, 4, 4), Group("hr", "local", 16, 2, 2)))
    block, mask = (
        TransformerBlock(WIDTH, FeedForward(WIDTH, 32), head_dim=8),
        torch.ones(layout.tokens, dtype=torch.bool),
    )
    flops = []
    for rate in (0.0, 0.25, 0.5):
        x = torch.randn(layout.tokens, WIDTH, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            images = choose(layout, rate=rate, draw=Draw(0, 0), block="")
            run_on_some(block, x, layout, mask, images=images)[0].sum().backward()
        flops.append(counter.get_total_flops())
    assert flops[0] > 0 and [f / flops[0] for f in flops] == [1.0, 0.75, 0.5]


def test_the_choice_follows_from_seed_step_and_block_and_its_size_from_nothing():
    layout = Layout(
        (
            Group("ms", "global", 10, 1, 1),
            Group("hr", "global", 1, 1, 1),
            Group("hr", "local", 3, 1, 1),
        )
    )
    keys = list(product(range(2), range(3), ("a", "b")))
    drawn = [
        choose(layout, rate=0.3, draw=Draw(seed, step), block=block) for seed, step, block in keys
    ]
    again = [
        choose(layout, rate=0.3, draw=Draw(seed, step), block=block) for seed, step, block in keys
    ]
    assert all(torch.equal(a, b) for one, two in zip(drawn, again) for a, b in zip(one, two))
    assert len({tuple(images[0].tolist()) for images in drawn}) > 8
    assert all([len(chosen) for chosen in images] == [7, 1, 2] for images in drawn)
    assert [images_kept(n, 0.2) for n in (1, 2, 5, 160)] == [1, 2, 4, 128] and images_kept(
        1, 0.9
    ) == 1
    often = torch.zeros(10)
    for step in range(2000):
        often[choose(layout, rate=0.3, draw=Draw(0, step), block="a")[0]] += 1
    assert (often / 2000 - 0.7).abs().max() < 0.06  # six deviations


def test_the_way_of_the_gradient():
    layout = Layout((Group("ms", "global", 3, 1, 2),))
    some = subset(torch.zeros(6, 2), layout, [torch.tensor([0, 2])])
    assert some.rows.tolist() == [0, 1, 4, 5] and some.places.tolist() == [0, 1, 4, 4, 2, 3]
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    small = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(_Move.apply(x, some.rows, some.places), x[some.rows])
    assert torch.equal(
        _Move.apply(small, some.places, some.rows),
        torch.zeros(6, 2).double().index_copy(0, some.rows, small),
    )
    assert torch.autograd.gradcheck(_Move.apply, (x, some.rows, some.places))
    assert torch.autograd.gradcheck(_Move.apply, (small, some.places, some.rows))


SPEC = ModelSpec(
    modalities={name: ModalitySpec(2, 1, (True,) * 3, (2, 2)) for name in ("hr", "ms")},
    widths=(8, 16, 32, 64),
    depths=(2, 2, 2, 2),
    head_dim=8,
    window=2,
    fusion=None,
    context=None,
    drop_path=0.25,
    moe=MoESpec(blocks=(4, 7), experts=2, capacity_factor=0.0),
)
LAYOUT = Layout((Group("hr", "global", 4, 8, 8), Group("ms", "global", 8, 8, 8)))
PRESENT = [torch.ones(4, dtype=torch.bool), torch.ones(8, dtype=torch.bool)]


def backbone(**options) -> Backbone:
    model = Backbone(SPEC, partial(MoE, spec=SPEC.moe), **options)
    initialise(model, 3)
    for norm in (m for m in model.modules() if type(m).__name__ == "BlockNorm"):
        nn.init.constant_(norm.weight, 0.5)
    return model


def outcome(model: Backbone, draw: Draw | None) -> list[torch.Tensor]:
    """Output, routing of the experts, gradients of input and weights."""
    model.zero_grad()
    x = torch.randn(LAYOUT.tokens, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    stages, routings = model(x, LAYOUT, PRESENT, draw)
    (stages[-1][0].square().sum() + sum(r.balance for r in routings)).backward()
    load = expert_load(routings, experts=2, modalities=["hr", "ms"])
    return [
        stages[-1][0].detach(),
        load,
        x.grad,
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
    ]


def equal(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_the_backbone_skips_in_training_with_a_draw_and_at_no_other_time():
    model = backbone()
    full = outcome(model, None)
    one, again, other = (outcome(model, Draw(0, step)) for step in (5, 5, 6))
    assert (
        equal(one, again) and not torch.equal(one[0], other[0]) and not torch.equal(one[0], full[0])
    )
    # of 4 and 8 images 3 and 6 go to the experts; prompts (4 an image) only before the last block
    # drops them
    assert one[1].sum(2).tolist() == [[3 * 8, 6 * 8], [3, 6]] and full[1].sum(2).tolist() == [
        [4 * 8, 8 * 8],
        [4, 8],
    ]
    model.eval()
    assert torch.equal(outcome(model, Draw(0, 5))[0], outcome(model, None)[0])


def test_recomputation_gives_the_same_gradients():
    assert equal(
        outcome(backbone(), Draw(0, 1)), outcome(backbone(recompute=recompute.BLOCKS), Draw(0, 1))
    )


def test_a_rate_that_leaves_nothing_is_refused():
    with pytest.raises(
        ModelError, match="model.drop_path: expected a share from 0 to below 1, found 1.0"
    ):
        SPEC.variant(drop_path=1.0)
