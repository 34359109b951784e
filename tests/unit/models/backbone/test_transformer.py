"""Pre-norm blocks against torch's own layer."""

import torch
from torch import nn

from models.backbone.attention import merge_alike
from models.backbone.feed_forward import FeedForward
from models.backbone.transformer import TransformerBlock
from models.packing import Group, Layout

WIDTH, HEAD_DIM = 16, 8
NAMES = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.qkv.weight": "self_attn.in_proj_weight",
    "attention.qkv.bias": "self_attn.in_proj_bias",
    "attention.out": "self_attn.out_proj",
    "ffn.fc1": "linear1",
    "ffn.fc2": "linear2",
}
LAYOUT = Layout(
    (
        Group("hr", "global", 2, 3, 4, prefix=2),
        Group("ms", "global", 3, 1, 1, prefix=2),
        Group("sar", "global", 4, 1, 1, prefix=2),
        Group("sar", "local", 1, 2, 1),
    )
)


def random_block() -> TransformerBlock:
    block = TransformerBlock(WIDTH, FeedForward(WIDTH, 4 * WIDTH), head_dim=HEAD_DIM).double()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5, generator=source)
    return block


def torch_layer(block: TransformerBlock) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    width = block.norm1.normalized_shape[0]
    layer = nn.TransformerEncoderLayer(
        width,
        width // block.attention.head_dim,
        4 * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    ).double()
    theirs = {}
    for name, ours in block.named_parameters():
        prefix = next(p for p in NAMES if name.startswith(p))
        theirs[name] = layer.get_parameter(NAMES[prefix] + name.removeprefix(prefix))
        theirs[name].data.copy_(ours)
    return layer, theirs


def test_values_and_gradients_equal_torch_for_every_image():
    block = random_block()
    layer, theirs = torch_layer(block)
    source = torch.Generator().manual_seed(1)
    x = torch.randn(LAYOUT.tokens, WIDTH, dtype=torch.float64, generator=source)
    upstream = torch.randn(x.shape, dtype=torch.float64, generator=source)
    ours, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, routing = block(ours, LAYOUT, torch.ones(LAYOUT.tokens, dtype=torch.bool))
    z = torch.cat([layer(part).flatten(0, 1) for part in LAYOUT.split(expected)])
    y.backward(upstream)
    z.backward(upstream)
    assert routing is None
    torch.testing.assert_close(y, z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-10, atol=1e-10)
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad, rtol=1e-10, atol=1e-10, msg=name
        )


def test_the_last_block_of_a_stage_equals_torch_with_the_prompts_cut_off():
    """Values, and all gradients of whatever reads the tokens that are left; those of the prompts
    included."""
    block = random_block()
    last = TransformerBlock(WIDTH, block.ffn, head_dim=HEAD_DIM, last=True).double()
    last.load_state_dict(block.state_dict())
    layer, theirs = torch_layer(block)
    source = torch.Generator().manual_seed(4)
    x = torch.randn(LAYOUT.tokens, WIDTH, dtype=torch.float64, generator=source)
    ours, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, _ = last(ours, LAYOUT, torch.ones(LAYOUT.tokens, dtype=torch.bool))
    z = torch.cat(
        [
            layer(part)[:, group.prefix :].flatten(0, 1)
            for part, group in zip(LAYOUT.split(expected), LAYOUT.groups)
        ]
    )
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=source)
    y.backward(upstream)
    z.backward(upstream)
    torch.testing.assert_close(y, z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-10, atol=1e-10)
    for name, parameter in last.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad, rtol=1e-10, atol=1e-10, msg=name
        )


def test_neighbours_of_one_shape_are_one_batch():
    merged = merge_alike(LAYOUT).groups
    assert [(group.length, group.images) for group in merged] == [(14, 2), (3, 7), (2, 1)]


def test_parts_of_a_large_batch_equal_the_whole(monkeypatch):
    block = random_block()
    x = torch.randn(
        LAYOUT.tokens, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    whole = block.attention(x, LAYOUT)
    monkeypatch.setattr("models.backbone.transformer.MAX_GRID", 2)
    torch.testing.assert_close(block.attention(x, LAYOUT), whole, rtol=1e-12, atol=1e-12)


def test_bf16_stays_close_and_keeps_its_type():
    block = random_block()
    x = torch.randn(
        LAYOUT.tokens, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    mask = torch.ones(LAYOUT.tokens, dtype=torch.bool)
    exact, _ = block(x, LAYOUT, mask)
    coarse, _ = block.bfloat16()(x.bfloat16(), LAYOUT, mask)
    assert coarse.dtype == torch.bfloat16
    assert (coarse.double() - exact).norm() < 0.05 * exact.norm()
