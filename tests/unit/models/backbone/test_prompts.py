"""Prompt tokens."""

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import nn

from models.backbone.feed_forward import FeedForward
from models.backbone.prompts import Prompts, drop_prefix
from models.backbone.stages import Stage
from models.initialise import initialise
from models.packing import Group, Layout
from models.spec import ModelSpec

LAYOUT = Layout(
    (
        Group("sar", "global", 2, 2, 3),
        Group("hr", "global", 3, 1, 1),
        Group("sar", "local", 1, 1, 2),
    )
)


def test_projected_tokens_of_the_modality_stand_in_front_of_every_image():
    prompts = Prompts(("hr", "ms", "sar"), width=8, count=4).double()
    initialise(prompts, seed=0)
    x = torch.randn(
        LAYOUT.tokens, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    y, longer = prompts(x, LAYOUT)
    assert longer == LAYOUT.with_prefix(4)
    for before, after, group in zip(LAYOUT.split(x), longer.split(y), LAYOUT.groups):
        token = (
            prompts.tokens[group.modality] @ prompts.projection.weight.T + prompts.projection.bias
        )
        torch.testing.assert_close(after[:, :4], token.expand(group.images, 4, 8))
        assert torch.equal(after[:, 4:], before)
    back, layout = drop_prefix(y, longer)
    assert layout == LAYOUT and torch.equal(back, x)


def timm_blocks(
    stage: Stage, width: int, head_dim: int
) -> tuple[nn.Sequential, dict[str, nn.Parameter]]:
    """timm's ViT blocks with the weights of a stage, and our name -> their parameter."""
    blocks = nn.Sequential(
        *(
            Block(width, width // head_dim, qkv_bias=True, norm_layer=nn.LayerNorm)
            for _ in stage.blocks
        )
    ).double()
    theirs = {}
    for name, ours in stage.blocks.named_parameters():
        other = (
            name.replace("attention.out", "attn.proj")
            .replace("attention", "attn")
            .replace("ffn", "mlp")
        )
        theirs[f"blocks.{name}"] = blocks.get_parameter(other)
        blocks.get_parameter(other).data.copy_(ours)
    assert len(theirs) == len(list(blocks.parameters()))
    return blocks, theirs


def test_a_stage_equals_timm_blocks_on_prompts_and_tokens_with_the_prompts_cut_off():
    """Values, and gradients of tokens, prompts, their projection and every block."""
    spec = ModelSpec(
        widths=(4, 8, 16, 32), depths=(1, 1, 3, 1), head_dim=4, prompts=(0, 0, 4, 4), moe=None
    )
    stage = Stage(spec, 2, [FeedForward(16, 64) for _ in range(3)]).double()
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.normal_(std=0.3, generator=source)
        for table in stage.positions.parameters():
            table.zero_()
    blocks, theirs = timm_blocks(stage, 16, 4)
    x = torch.randn(LAYOUT.tokens, 16, dtype=torch.float64, generator=source)
    ours, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, _ = stage(
        ours, LAYOUT, [torch.ones(group.images, dtype=torch.bool) for group in LAYOUT.groups]
    )
    prompts = {
        name: p.detach().clone().requires_grad_() for name, p in stage.prompts.named_parameters()
    }
    outputs = []
    for part, group in zip(LAYOUT.split(expected), LAYOUT.groups):
        front = F.linear(
            prompts[f"tokens.{group.modality}"],
            prompts["projection.weight"],
            prompts["projection.bias"],
        )
        both = torch.cat([front.expand(group.images, -1, -1), part], 1)  # images 4+hw D
        outputs.append(blocks(both)[:, 4:].flatten(0, 1))
    z = torch.cat(outputs)
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=source)
    y.backward(upstream)
    z.backward(upstream)
    torch.testing.assert_close(y, z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-10, atol=1e-10)
    theirs |= {
        f"prompts.{name}": p for name, p in prompts.items() if name != "tokens.ms"
    }  # no such image here
    for name, parameter in theirs.items():
        torch.testing.assert_close(
            stage.get_parameter(name).grad, parameter.grad, rtol=1e-10, atol=1e-10, msg=name
        )


def test_only_the_modalities_present_get_a_gradient_that_is_not_zero():
    prompts = Prompts(("hr", "ms", "sar"), width=8, count=4)
    initialise(prompts, seed=0)
    y, _ = prompts(torch.zeros(LAYOUT.tokens, 8), LAYOUT)
    y.sum().backward()
    assert {name: bool(token.grad.any()) for name, token in prompts.tokens.items()} == {
        "hr": True,
        "ms": False,
        "sar": True,
    }


def test_size_of_table_6():
    spec = ModelSpec()
    with torch.device("meta"):
        stages = [
            Prompts(tuple(spec.modalities), width=width, count=count)
            for width, count in zip(spec.widths, spec.prompts)
            if count
        ]
    size = sum(p.numel() for stage in stages for p in stage.parameters())
    assert 9.92e6 <= size <= 9.97e6
