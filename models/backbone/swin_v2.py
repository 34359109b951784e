"""Blocks of stages 1 and 2: Swin Transformer V2 (Liu et al., CVPR 2022).

Residual post-norm, scaled cosine attention in windows, log-spaced continuous position bias. Every
other block shifts its windows by half their side, so that neighbours meet.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone.attention import MAX_GRID, split_alike
from models.backbone.packing import Layout, pack
from models.errors import ModelError
from models.kernels.dispatch import kernel_path

MAX_LOGIT_SCALE = math.log(100)  # Swin V2: the learned temperature stays above 0.01
FIRST_LOGIT_SCALE = math.log(10)
BIAS_HIDDEN = 512  # hidden units of the position-bias network
BIAS_RANGE = 16  # the bias lies in (0, 16)
# Shortest query or key that counts as a direction; at the start they have a norm of about 0.3. A
# blank patch may give the zero vector exactly, whose gradient is 1 / this: torch's default of 1e-12
# makes that of q_bias 1e10.
MIN_NORM = 1e-2


class Windows(NamedTuple):
    """How one grid is cut. A side shorter than the window is one window of that side, without
    shift."""

    side: tuple[int, int]  # rows and columns of a window
    shift: tuple[int, int]
    count: tuple[int, int]  # windows down and across, after padding at the bottom and right


def windows_of(height: int, width: int, window: int, shift: int) -> Windows:
    """Windows of a height x width grid."""
    side = min(height, window), min(width, window)
    shifts = shift if height > window else 0, shift if width > window else 0
    return Windows(side, shifts, (math.ceil(height / side[0]), math.ceil(width / side[1])))


class BlockNorm(nn.LayerNorm):
    """The norm at the end of a branch. It starts at zero, so that the block starts as the identity
    (Swin V2)."""

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill weight or bias with zeros."""
        tensor.zero_()


class WindowAttention(nn.Module):
    """Scaled cosine attention inside windows, with the position bias of the pair of tokens."""

    def __init__(self, width: int, head_dim: int, window: int, shift: int):
        super().__init__()
        self.head_dim = head_dim
        self.window = window
        self.shift = shift
        heads = width // head_dim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(
            torch.zeros(width)
        )  # a bias of the keys would cancel in the softmax of plain dots
        self.logit_scale = nn.Parameter(torch.full((heads,), FIRST_LOGIT_SCALE))
        self.bias_net = nn.Sequential(
            nn.Linear(2, BIAS_HIDDEN), nn.ReLU(), nn.Linear(BIAS_HIDDEN, heads, bias=False)
        )
        self.out = nn.Linear(width, width)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the parameters that no standard layer owns."""
        tensor.fill_(FIRST_LOGIT_SCALE if name == "logit_scale" else 0.0)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Packed (N, D) -> (N, D); projections once over the packed axis, attention by grid."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])  # 3D
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(
            -1, (3, -1, self.head_dim)
        )  # N 3 heads d
        scale = self._exact(self.logit_scale).clamp(max=MAX_LOGIT_SCALE).exp()  # heads
        table = self._bias_table()  # (2w-1)^2 heads
        parts = []
        for group, part in split_alike(qkv, layout):
            if group.prefix:
                raise ModelError(
                    f"window attention: expected no prompt tokens, found {group.prefix} in {group}; "
                    "prompts belong to the stages with global attention"
                )
            parts.append(self._attend(part.unflatten(1, (group.height, group.width)), scale, table))
        return self.out(pack(parts))  # N D

    def _exact(self, x: Tensor) -> Tensor:
        """Exponentials and the bias network are computed in float32 or better: they are small, and
        bf16 is coarse."""
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _bias_table(self) -> Tensor:
        """Bias of every relative position inside the nominal window: ((2w-1)^2, heads)."""
        first, _, last = self.bias_net
        coordinates = log_coordinates(self.window, first.weight.device).to(
            self._exact(first.weight).dtype
        )
        hidden = F.relu(
            F.linear(coordinates, self._exact(first.weight), self._exact(first.bias))
        )  # (2w-1)^2 hidden
        return BIAS_RANGE * F.linear(hidden, self._exact(last.weight)).sigmoid()

    def _attend(self, qkv: Tensor, scale: Tensor, table: Tensor) -> Tensor:
        """(images, h, w, 3, heads, d) -> (images, hw, D)."""
        images, height, width, _, heads, _ = qkv.shape
        cut = windows_of(height, width, self.window, self.shift)
        if kernel_path("window_attention", qkv, why_not=_beyond_kernel(qkv, cut)):
            from models.kernels.window_attention import window_attention  # needs triton

            return window_attention(qkv, scale, table, *cut, MIN_NORM)
        index, mask = window_tables(height, width, self.window, self.shift, qkv.device)
        # embedding, unlike indexing, has a deterministic and fast backward on every device
        bias = F.embedding(index, table).permute(2, 0, 1).to(qkv.dtype)  # heads L L
        q, k, v = _to_windows(qkv, cut)  # images windows heads L d
        q = F.normalize(q, dim=-1, eps=MIN_NORM) * scale[:, None, None].to(
            q.dtype
        )  # images windows heads L d
        k = F.normalize(k, dim=-1, eps=MIN_NORM)  # images windows heads L d
        if mask is None:
            fold = 0  # images x windows, heads L d
        # windows differ in their mask: they count as heads, so that the bias is stored once for all
        # images
        else:
            fold = 1  # images, windows x heads, L d
            bias = bias.masked_fill(~mask[:, None], -torch.inf).flatten(
                0, 1
            )  # windows x heads, L L
        out = _biased_attention(*(t.flatten(fold, fold + 1) for t in (q, k, v)), bias[None])
        out = out.reshape(
            images, math.prod(cut.count), heads, *out.shape[-2:]
        )  # images windows heads L d
        return _from_windows(out, cut, height, width)  # images hw D


class SwinBlock(nn.Module):
    """x + norm(attention(x)), then x + norm(ffn(x))."""

    def __init__(self, width: int, head_dim: int, window: int, shift: int, ffn: nn.Module):
        super().__init__()
        self.attention = WindowAttention(width, head_dim, window, shift)
        self.norm1 = BlockNorm(width)
        self.ffn = ffn
        self.norm2 = BlockNorm(width)

    def forward(self, x: Tensor, layout: Layout, mask: Tensor) -> tuple[Tensor, object]:
        """Packed (N, D), mask (N,) bool of the tokens that experts serve -> (N, D) and the routing,
        or None."""
        x = x + self.norm1(self.attention(x, layout))  # N D
        y, routing = self.ffn(x, mask)  # N D
        return x + self.norm2(y), routing


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve training too
def log_coordinates(window: int, device: torch.device) -> Tensor:
    """Relative positions inside a window, log-spaced (Swin V2, equation 4): ((2w-1)^2, 2) float64."""
    offset = (
        torch.arange(1 - window, window, dtype=torch.float64, device="cpu") / max(window - 1, 1) * 8
    )
    offset = offset.sign() * (offset.abs() + 1).log2() / 3  # log2(8) = 3
    return torch.cartesian_prod(offset, offset).to(device)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def window_tables(
    height: int, width: int, window: int, shift: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """For a grid: the index (L, L) of each pair of tokens in the bias table, and the mask (windows,
    L, L) bool.

    The mask is True where the query may attend to the key: both lie in the same window of the
    unrolled grid and the key is no padding. None if that holds everywhere. Queries that are padding
    attend to anything, their result is cut.
    """
    cut = windows_of(height, width, window, shift)
    place = torch.cartesian_prod(*(torch.arange(n, device="cpu") for n in cut.side)).view(
        -1, 2
    )  # L 2
    relative = place[:, None] - place[None] + window - 1  # L L 2
    index = relative[..., 0] * (2 * window - 1) + relative[..., 1]  # L L
    regions = []
    for size, side, moved, count in zip((height, width), *cut):
        row = (torch.arange(side * count, device="cpu") + moved) % (
            side * count
        )  # grid row behind each rolled row
        region = torch.where(row < moved, 1, 0).where(
            row < size, -1
        )  # rolled in from the far side: another region
        regions.append(region.view(count, side))
    down, across = regions
    shape = down.shape[0], across.shape[0], down.shape[1], across.shape[1]
    down, across = down[:, None, :, None].expand(shape), across[None, :, None, :].expand(shape)
    padding = ((down < 0) | (across < 0)).reshape(-1, len(place))  # windows L
    region = (2 * down + across).reshape(-1, len(place))  # windows L
    mask = (region[:, :, None] == region[:, None]) & ~padding[:, None] | padding[
        :, :, None
    ]  # windows L L
    return index.to(device), None if mask.all() else mask.to(device)


def _beyond_kernel(qkv: Tensor, cut: Windows) -> str | None:
    """What the kernel does not take, if anything."""
    if qkv.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        return f"the type is {qkv.dtype}, it takes bfloat16, float16 and float32"
    if math.prod(cut.side) > 64:
        return f"a window has {math.prod(cut.side)} tokens, it takes 64"
    if qkv.shape[-1] not in (16, 32, 64):
        return f"a head has {qkv.shape[-1]} channels, it takes 16, 32 and 64"
    return None


def _to_windows(qkv: Tensor, cut: Windows) -> Tensor:
    """(images, h, w, 3, heads, d) -> (3, images, windows, heads, L, d)."""
    down, across = (n * side for n, side in zip(cut.count, cut.side))
    _, height, width = qkv.shape[:3]
    if (down, across) != (height, width):
        qkv = F.pad(qkv, (0, 0, 0, 0, 0, 0, 0, across - width, 0, down - height))
    if any(cut.shift):
        qkv = qkv.roll((-cut.shift[0], -cut.shift[1]), (1, 2))
    qkv = qkv.unflatten(2, (cut.count[1], cut.side[1])).unflatten(1, (cut.count[0], cut.side[0]))
    # images down rows across columns 3 heads d
    return qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3)


def _from_windows(x: Tensor, cut: Windows, height: int, width: int) -> Tensor:
    """(images, windows, heads, L, d) -> (images, hw, D)."""
    x = x.unflatten(3, cut.side).unflatten(1, cut.count)  # images down across heads rows columns d
    x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)  # images h w D
    if any(cut.shift):
        x = x.roll(cut.shift, (1, 2))
    return x[:, :height, :width].flatten(1, 2)  # images hw D


def _biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """(A, B, L, d) with bias (1, B, L, L) -> (A, B, L, d), in parts that fit the kernels' grid."""
    rows = []
    for q, k, v in zip(*(t.split(MAX_GRID) for t in (q, k, v))):
        heads = zip(*(t.split(MAX_GRID, dim=1) for t in (q, k, v, bias)))
        parts = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=b, scale=1.0) for q, k, v, b in heads
        ]
        rows.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
    return rows[0] if len(rows) == 1 else torch.cat(rows)
