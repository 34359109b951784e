"""The whole backbone: sizes of the paper, packing, masks, switches."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from models.backbone.stages import Backbone
from models.errors import ModelError
from models.initialise import initialise
from models.moe.layer import MoE
from models.packing import Group, Layout, pack
from models.recompute import BLOCKS, NONE
from models.spec import ModelSpec, MoESpec

SMALL = ModelSpec(
    widths=(16, 32, 64, 128),
    depths=(2, 2, 2, 1),
    head_dim=16,
    window=4,
    prompts=(0, 0, 2, 3),
    moe=MoESpec(blocks=(3, 4, 5, 6), experts=4, capacity_factor=0.0),
)
LAYOUT = Layout(
    (
        Group("hr", "global", 2, 16, 16),
        Group("ms", "global", 3, 2, 2),
        Group("sar", "global", 2, 2, 2),
        Group("hr", "local", 2, 10, 6),
        Group("ms", "local", 3, 1, 1),
    )
)
ALL_PRESENT = [torch.ones(group.images, dtype=torch.bool) for group in LAYOUT.groups]


def build(spec: ModelSpec, seed: int = 0, **options) -> Backbone:
    backbone = Backbone(spec, partial(MoE, spec=spec.moe), **options)
    initialise(backbone, seed)
    with torch.no_grad():  # Swin branches start at zero: open them, else they test nothing
        for name, parameter in backbone.named_parameters():
            if parameter.eq(0).all() and "norm" in name and "weight" in name:
                parameter.fill_(0.5)
    return backbone


def random_tokens(layout: Layout, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        layout.tokens, SMALL.widths[0], generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize(
    "moe, millions",
    [
        (None, 661.40),
        (MoESpec(), 1994.10),
        (MoESpec(experts=4), 1232.56),
        (MoESpec(experts=16), 3517.17),
        (MoESpec(blocks=tuple(range(22, 24))), 1549.79),
        (MoESpec(blocks=tuple(range(20, 24))), 1771.94),
        (MoESpec(blocks=tuple(range(16, 24))), 2216.26),
        (MoESpec(blocks=(3, 7, 11, 15, 19, 23)), 1577.69),
    ],
)
def test_parameters_of_the_paper(moe, millions):
    spec = ModelSpec(moe=moe)
    with torch.device("meta"):
        backbone = Backbone(spec, partial(MoE, spec=moe))
    sizes = {name: p.numel() for name, p in backbone.named_parameters()}
    prompts = sum(size for name, size in sizes.items() if ".prompts." in name)
    assert (sum(sizes.values()) - prompts) / 1e6 == pytest.approx(millions, abs=0.01)
    assert 9.92 <= prompts / 1e6 <= 9.97


def test_stage_outputs_and_routings():
    backbone = build(SMALL)
    stages, routings = backbone(random_tokens(LAYOUT), LAYOUT, ALL_PRESENT)
    sides = [[(g.height, g.width) for g in layout.groups] for _, layout in stages]
    hr, local = [(16, 16), (8, 8), (4, 4), (2, 2)], [(10, 6), (5, 3), (3, 2), (2, 1)]
    assert sides == [[hr[i], (2, 2), (2, 2), local[i], (1, 1)] for i in range(4)]
    for (x, layout), width in zip(stages, SMALL.widths):
        assert x.shape == (layout.tokens, width) and x.isfinite().all()
    last = stages[-1][0]
    torch.testing.assert_close(
        last.mean(1), torch.zeros(len(last)), atol=1e-5, rtol=0
    )  # normalised
    assert [routing.expert.shape[0] for routing in routings] == [
        routing.layout.tokens for routing in routings
    ]
    assert [routing.layout.groups[0].prefix for routing in routings] == [
        0,
        2,
        0,
        0,
    ]  # a stage's last block drops them


def test_images_alone_equal_images_packed():
    """No image knows its neighbours, whatever their modality, size or order."""
    backbone = build(SMALL).double().eval()
    x = random_tokens(LAYOUT).double()
    packed = backbone(x, LAYOUT, ALL_PRESENT)[0]
    together = [layout.split(stage) for stage, layout in packed]
    for i, group in enumerate(LAYOUT.groups):
        for image in (0, group.images - 1):
            alone = Layout((Group(group.modality, "any", 1, group.height, group.width),))
            stages, _ = backbone(
                LAYOUT.split(x)[i][image], alone, [torch.ones(1, dtype=torch.bool)]
            )
            for (found, _), parts in zip(stages, together):
                torch.testing.assert_close(found, parts[i][image], rtol=1e-9, atol=1e-9)


def test_absent_images_change_nobody_and_reach_no_expert():
    backbone = build(
        SMALL.variant(moe=MoESpec(blocks=(6,), experts=4, capacity_factor=0.5, min_capacity=1))
    )
    present = [p.clone() for p in ALL_PRESENT]
    present[0][1] = present[1][0] = present[4][:] = False
    parts = LAYOUT.split(random_tokens(LAYOUT))
    noise = LAYOUT.split(random_tokens(LAYOUT, seed=9))
    swapped = pack([torch.where(p[:, None, None], a, b) for a, b, p in zip(parts, noise, present)])
    first, routings = backbone(pack(parts), LAYOUT, present)
    second, again = backbone(swapped, LAYOUT, present)
    for (a, layout), (b, _) in zip(first, second):
        for u, v, p in zip(layout.split(a), layout.split(b), present):
            torch.testing.assert_close(u[p], v[p], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(routings[0].balance, again[0].balance)
    for rows, p in zip(routings[0].layout.split(routings[0].expert), present):
        assert rows[~p].eq(-1).all() and rows[p].ge(0).all()


def same_weights(backbone: Backbone, spec: ModelSpec) -> Backbone:
    """Another specification with the weights of ``backbone``, as far as it has their modules."""
    other = build(spec)
    missing, _ = other.load_state_dict(backbone.state_dict(), strict=False)
    assert not missing
    return other


def merging(**flags) -> ModelSpec:
    modalities = {
        name: replace(modality, merge=flags.get(name, modality.merge))
        for name, modality in SMALL.modalities.items()
    }
    return SMALL.variant(modalities=modalities)


def test_each_merge_is_a_setting_that_keeps_the_weights():
    backbone = build(SMALL)
    x = random_tokens(LAYOUT)
    for flags, sides in (
        ((True, True, False), [16, 8, 4, 4]),
        ((True, False, False), [16, 8, 8, 8]),
        ((False, False, False), [16, 16, 16, 16]),
    ):
        stages, _ = same_weights(backbone, merging(hr=flags))(x, LAYOUT, ALL_PRESENT)
        assert [layout.groups[0].height for _, layout in stages] == sides
        assert [layout.groups[1].height for _, layout in stages] == [2, 2, 2, 2]
    stages, _ = same_weights(backbone, merging(ms=(True, False, False)))(x, LAYOUT, ALL_PRESENT)
    assert [layout.groups[1].height for _, layout in stages] == [2, 1, 1, 1]


def test_prompts_are_a_setting_that_changes_only_the_stages_that_have_them():
    backbone = build(SMALL)
    x = random_tokens(LAYOUT)
    plain, routings = same_weights(backbone, SMALL.variant(prompts=(0, 0, 0, 0)))(
        x, LAYOUT, ALL_PRESENT
    )
    prompted, _ = backbone(x, LAYOUT, ALL_PRESENT)
    assert all(group.prefix == 0 for routing in routings for group in routing.layout.groups)
    torch.testing.assert_close(plain[1][0], prompted[1][0])  # before the first stage with prompts
    assert not torch.allclose(plain[2][0], prompted[2][0], atol=1e-4)


def test_recomputation_changes_neither_values_nor_gradients():
    results = []
    for recompute in (NONE, BLOCKS):
        backbone = build(SMALL, recompute=recompute)
        x = random_tokens(LAYOUT).requires_grad_()
        stages, routings = backbone(x, LAYOUT, ALL_PRESENT)
        loss = sum(stage.square().mean() for stage, _ in stages) + sum(r.balance for r in routings)
        loss.backward()
        results.append([loss.detach(), x.grad] + [p.grad for p in backbone.parameters()])
    for plain, recomputed in zip(*results):
        assert torch.equal(plain, recomputed)


def test_every_parameter_gets_a_gradient():
    backbone = build(SMALL)
    stages, routings = backbone(random_tokens(LAYOUT), LAYOUT, ALL_PRESENT)
    (stages[-1][0][:, ::3].square().sum() + sum(r.balance for r in routings)).backward()
    dead = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_bf16_stays_close():
    spec = SMALL.variant(moe=None)
    backbone = build(spec)
    x = random_tokens(LAYOUT)
    exact = backbone.double()(x.double(), LAYOUT, ALL_PRESENT)[0]
    coarse = backbone.bfloat16()(x.bfloat16(), LAYOUT, ALL_PRESENT)[0]
    for (a, _), (b, _) in zip(exact, coarse):
        assert b.dtype == torch.bfloat16
        assert (a - b.double()).norm() < 0.05 * a.norm()
    model = build(SMALL).bfloat16()
    stages, routings = model(x.bfloat16(), LAYOUT, ALL_PRESENT)
    (stages[-1][0].float().square().sum() + sum(r.balance for r in routings)).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_runs_on_the_meta_device():
    with torch.device("meta"):
        backbone = Backbone(SMALL.variant(moe=None))
    tokens = torch.empty(LAYOUT.tokens, SMALL.widths[0], device="meta")
    stages, _ = backbone(tokens, LAYOUT, [p.to("meta") for p in ALL_PRESENT])
    assert stages[-1][0].shape == (stages[-1][1].tokens, SMALL.widths[-1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": torch.zeros(3, 16)}, "expected [0-9]+ tokens as in the layout.*found 3 tokens"),
        ({"present": ALL_PRESENT[:-1]}, "one flag an image"),
        ({"layout": Layout((Group("uav", "global", 1, 2, 2),))}, r"found \['uav'\]"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    backbone = build(SMALL.variant(moe=None))
    arguments = {"tokens": random_tokens(LAYOUT), "layout": LAYOUT, "present": ALL_PRESENT} | change
    with pytest.raises(ModelError, match=message):
        backbone(**arguments)


def test_experts_need_a_factory():
    with pytest.raises(ModelError, match="expected a moe_factory"):
        Backbone(SMALL)
