"""Swin V2 blocks against timm's and, where timm does not mask its padding, against the dense
formula."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import SwinTransformerV2Block

from models.backbone.feed_forward import FeedForward
from models.backbone.swin_v2 import SwinBlock, WindowAttention
from models.backbone.windows import log_coordinates
from models.errors import ModelError
from models.initialise import initialise
from models.packing import Group, Layout

WIDTH, HEAD_DIM = 16, 8
TIGHT = {"rtol": 1e-10, "atol": 1e-10}


def random_block(window: int, shift: int, seed: int = 0) -> SwinBlock:
    block = SwinBlock(
        WIDTH, FeedForward(WIDTH, 4 * WIDTH), head_dim=HEAD_DIM, window=window, shift=shift
    ).double()
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5, generator=source)
        block.attention.logit_scale.copy_(
            torch.tensor([5.0, 1.0])
        )  # one above the clamp at log 100
    return block


def timm_block(
    block: SwinBlock, height: int, width: int, window: int, shift: int
) -> tuple[torch.nn.Module, dict]:
    """timm's block with our weights, and our name -> its parameter, in our shape."""
    channels, head_dim = block.norm1.normalized_shape[0], block.attention.head_dim
    other = SwinTransformerV2Block(
        channels,
        (height, width),
        channels // head_dim,
        window,
        shift,
        pretrained_window_size=window,
    ).double()
    names = {
        "attention.q_bias": "attn.q_bias",
        "attention.v_bias": "attn.v_bias",
        "attention.logit_scale": "attn.logit_scale",
        "attention.qkv.weight": "attn.qkv.weight",
        "attention.bias_net.0.weight": "attn.cpb_mlp.0.weight",
        "attention.bias_net.0.bias": "attn.cpb_mlp.0.bias",
        "attention.bias_net.2.weight": "attn.cpb_mlp.2.weight",
        "attention.out.weight": "attn.proj.weight",
        "attention.out.bias": "attn.proj.bias",
        "ffn.fc1.weight": "mlp.fc1.weight",
        "ffn.fc1.bias": "mlp.fc1.bias",
        "ffn.fc2.weight": "mlp.fc2.weight",
        "ffn.fc2.bias": "mlp.fc2.bias",
    }
    names |= {name: name for name, _ in block.named_parameters() if name.startswith("norm")}
    theirs = {name: other.get_parameter(names[name]) for name, _ in block.named_parameters()}
    assert len(theirs) == len(dict(other.named_parameters()))
    with torch.no_grad():
        for name, ours in block.named_parameters():
            theirs[name].copy_(ours.view_as(theirs[name]))
    # timm computes its coordinates in float32
    table = other.attn.relative_coords_table
    rows, columns = ((n - 1) // 2 for n in table.shape[1:3])
    offsets = torch.stack(
        torch.meshgrid(
            torch.arange(-rows, rows + 1.0, dtype=torch.float64),
            torch.arange(-columns, columns + 1.0, dtype=torch.float64),
            indexing="ij",
        ),
        -1,
    )
    offsets = offsets * 8 / (window - 1)
    table.copy_(
        offsets.sign()
        * torch.log2(1 + offsets.abs())
        / torch.log2(torch.tensor(8.0, dtype=torch.float64))
    )
    return other, theirs


@pytest.mark.parametrize(
    "height, width", [(8, 8), (16, 16), (16, 24), (4, 4), (1, 1), (2, 5), (4, 16)]
)
@pytest.mark.parametrize("shift", [0, 4])
def test_values_and_gradients_equal_timm(height, width, shift):
    block = random_block(8, shift)
    other, theirs = timm_block(block, height, width, 8, shift)
    source = torch.Generator().manual_seed(1)
    x = torch.randn(3, height, width, WIDTH, dtype=torch.float64, generator=source)
    upstream = torch.randn(x.shape, dtype=torch.float64, generator=source)
    ours, expected = x.clone().requires_grad_(), x.clone().requires_grad_()

    layout = Layout((Group("hr", "global", 3, height, width),))
    y, routing = block(ours.view(-1, WIDTH), layout, torch.ones(layout.tokens, dtype=torch.bool))
    y.backward(upstream.view(-1, WIDTH))
    z = other(expected)
    z.backward(upstream)

    assert routing is None
    torch.testing.assert_close(y.view_as(z), z, **TIGHT)
    torch.testing.assert_close(ours.grad, expected.grad, **TIGHT)
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad.view_as(parameter), msg=name, **TIGHT
        )


def dense_attention(
    attention: WindowAttention, x: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """One image (hw, D), every pair of tokens compared: the definition, without windows, rolls or
    padding."""
    scale = attention.logit_scale.clamp(
        max=torch.log(torch.tensor(100.0, dtype=torch.float64))
    ).exp()
    bias = torch.cat([attention.q_bias, torch.zeros(WIDTH, dtype=torch.float64), attention.v_bias])
    q, k, v = (x @ attention.qkv.weight.T + bias).view(len(x), 3, -1, HEAD_DIM).permute(1, 2, 0, 3)
    row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    window = attention.window
    shift_r, shift_c = (attention.shift * (n > window) for n in (height, width))
    # windows of the unrolled plane, their borders moved by the shift
    cell = torch.stack(
        [(row - shift_r + window) // window, (column - shift_c + window) // window], -1
    )
    together = (cell[:, None] == cell[None]).all(-1)
    if height <= window:
        assert together[0, width * (height - 1)]
    offset = (
        torch.stack([row[:, None] - row, column[:, None] - column], -1).double() * 8 / (window - 1)
    )
    offset = offset.sign() * (1 + offset.abs()).log2() / 3
    position = 16 * torch.sigmoid(attention.bias_net(offset)).permute(2, 0, 1)
    cosine = F.cosine_similarity(q[:, :, None], k[:, None], dim=-1)
    logits = (scale[:, None, None] * cosine + position).masked_fill(~together, -torch.inf)
    return attention.out((logits.softmax(-1) @ v).permute(1, 0, 2).flatten(1))


@pytest.mark.parametrize("height, width", [(7, 5), (6, 3), (5, 5), (9, 4), (8, 12), (13, 6)])
@pytest.mark.parametrize("shift", [0, 2])
def test_padding_has_no_influence(height, width, shift):
    """Sides that are no multiples of the window, with and without shift, in one packed batch of two
    groups."""
    attention = random_block(4, shift).attention
    source = torch.Generator().manual_seed(2)
    layout = Layout(
        (
            Group("hr", "global", 2, height, width),
            Group("ms", "global", 1, height, width),
            Group("sar", "global", 1, 2, 2),
        )
    )
    x = torch.randn(layout.tokens, WIDTH, dtype=torch.float64, generator=source).requires_grad_()
    upstream = torch.randn(x.shape, dtype=torch.float64, generator=source)
    y = attention(x, layout)
    images = [image for part in layout.split(x) for image in part]
    sides = [(height, width)] * 3 + [(2, 2)]
    expected = torch.cat(
        [dense_attention(attention, image, *side) for image, side in zip(images, sides)]
    )
    torch.testing.assert_close(y, expected, **TIGHT)
    ours = torch.autograd.grad(y, [x, *attention.parameters()], upstream)
    wanted = torch.autograd.grad(expected, [x, *attention.parameters()], upstream)
    for a, b in zip(ours, wanted):
        torch.testing.assert_close(a, b, **TIGHT)


def test_parts_of_a_large_batch_equal_the_whole(monkeypatch):
    layout = Layout((Group("hr", "global", 3, 8, 8), Group("hr", "local", 3, 4, 8)))
    x = torch.randn(
        layout.tokens, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    for shift in (0, 2):
        attention = random_block(4, shift).attention
        whole = attention(x, layout)
        monkeypatch.setattr("models.backbone.swin_v2.MAX_GRID", 3)
        torch.testing.assert_close(attention(x, layout), whole, **TIGHT)
        monkeypatch.undo()


def test_blank_patches_keep_gradients_bounded():
    """Zero tokens give zero keys, whose direction has no derivative."""
    attention = WindowAttention(WIDTH, head_dim=HEAD_DIM, window=4, shift=0)
    initialise(attention, seed=4)
    source = torch.Generator().manual_seed(5)
    x = torch.randn(16, WIDTH, generator=source)
    x[3] = 0
    x.requires_grad_()
    y = attention(x, Layout((Group("hr", "global", 1, 4, 4),)))
    y.backward(torch.randn(y.shape, generator=source))
    gradients = torch.cat([p.grad.flatten() for p in [x, *attention.parameters()]])
    assert gradients.abs().max() < 50


def test_bf16_stays_close_and_keeps_its_type():
    block = random_block(4, 2).float()
    layout = Layout((Group("hr", "global", 2, 7, 8),))
    x = torch.randn(layout.tokens, WIDTH, generator=torch.Generator().manual_seed(6))
    mask = torch.ones(layout.tokens, dtype=torch.bool)
    exact, _ = block.double()(x.double(), layout, mask)
    coarse, _ = block.bfloat16()(x.bfloat16(), layout, mask)
    assert coarse.dtype == torch.bfloat16
    assert (coarse.double() - exact).norm() < 0.05 * exact.norm()


def test_prompts_are_refused():
    with pytest.raises(ModelError, match="expected no prompt tokens"):
        WindowAttention(WIDTH, head_dim=HEAD_DIM, window=4, shift=0)(
            torch.zeros(5, WIDTH), Layout((Group("hr", "global", 1, 1, 1, prefix=4),))
        )


def test_tables_made_under_inference_mode_serve_training():
    log_coordinates.cache_clear()
    attention = WindowAttention(WIDTH, head_dim=HEAD_DIM, window=3, shift=0)
    layout = Layout((Group("hr", "global", 1, 3, 5),))
    with torch.inference_mode():
        attention(torch.zeros(15, WIDTH), layout)
    attention(torch.ones(15, WIDTH), layout).sum().backward()
    assert attention.bias_net[0].weight.grad is not None
