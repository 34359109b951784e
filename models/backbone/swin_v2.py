"""Blocks of stages 1 and 2: Swin Transformer V2 (Liu et al., CVPR 2022).

Residual post-norm, scaled cosine attention in windows, log-spaced continuous position bias. Every
other block shifts its windows by half their side, so that neighbours meet.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone.attention import MAX_GRID, join, split_alike
from models.backbone.feed_forward import run_ffn
from models.backbone.windows import (
    Windows,
    from_windows,
    log_coordinates,
    to_windows,
    window_tables,
    windows_of,
)
from models.errors import ModelError
from models.kernels.dispatch import kernel_path
from models.moe.layer import Routing
from models.packing import Layout, pack

MAX_LOGIT_SCALE = math.log(100)  # Swin V2: the learned temperature stays above 0.01
FIRST_LOGIT_SCALE = math.log(10)
BIAS_HIDDEN = 512  # hidden units of the position-bias network
BIAS_RANGE = 16  # the bias lies in (0, 16)
# Shortest query or key that counts as a direction; at the start they have a norm of about 0.3. The
# gradient of a shorter one is 1 / this: with torch's 1e-12 that of a zero vector would be 1e12.
MIN_NORM = 1e-2

KERNEL_TYPES = (torch.bfloat16, torch.float16, torch.float32)
KERNEL_TOKENS = 64  # most tokens of a window that the kernel takes
KERNEL_HEAD_DIMS = (16, 32, 64)


class BlockNorm(nn.LayerNorm):
    """The norm at the end of a branch.

    It starts at zero, so that the block starts as the identity (Swin V2).
    """

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill weight or bias with zeros."""
        tensor.zero_()


class WindowAttention(nn.Module):
    """Scaled cosine attention inside windows, with the position bias of the pair of tokens."""

    def __init__(self, width: int, *, head_dim: int, window: int, shift: int):
        super().__init__()
        self.head_dim = head_dim
        self.window = window
        self.shift = shift
        heads = width // head_dim
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        # A bias of the keys would cancel in the softmax of plain dot products.
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.logit_scale = nn.Parameter(torch.full((heads,), FIRST_LOGIT_SCALE))
        self.bias_net = nn.Sequential(
            nn.Linear(2, BIAS_HIDDEN), nn.ReLU(), nn.Linear(BIAS_HIDDEN, heads, bias=False)
        )
        self.out = nn.Linear(width, width)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the parameters that no standard layer owns."""
        if name == "logit_scale":
            tensor.fill_(FIRST_LOGIT_SCALE)
        else:
            tensor.zero_()

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Attend inside the windows of every image.

        Args:
            x: Packed tokens (N, D) without prompts. They are projected all at once.
            layout: Their table.

        Returns:
            Packed (N, D).

        Raises:
            ModelError: A group has prompt tokens.
        """
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])  # 3D
        qkv = F.linear(x, self.qkv.weight, bias)  # N 3D
        qkv = qkv.unflatten(-1, (3, -1, self.head_dim))  # N 3 heads d
        scale = _exact(self.logit_scale).clamp(max=MAX_LOGIT_SCALE).exp()  # heads
        table = self._bias_table()  # (2w-1)^2 heads
        outputs = []
        for group, part in split_alike(qkv, layout):
            if group.prefix:
                raise ModelError(
                    f"window attention: expected no prompt tokens, found {group.prefix} in "
                    f"{group}; prompts belong to the stages with global attention"
                )
            images = part.unflatten(1, (group.height, group.width))  # images h w 3 heads d
            outputs.append(self.attend(images, scale, table))
        return self.out(pack(outputs))  # N D

    def _bias_table(self) -> Tensor:
        """Bias of every relative position inside the nominal window: ((2w-1)^2, heads)."""
        first = cast(nn.Linear, self.bias_net[0])
        last = cast(nn.Linear, self.bias_net[2])
        weight = _exact(first.weight)
        coordinates = log_coordinates(self.window, weight.device).to(weight.dtype)  # (2w-1)^2 2
        hidden = F.relu(F.linear(coordinates, weight, _exact(first.bias)))  # (2w-1)^2 hidden
        return BIAS_RANGE * F.linear(hidden, _exact(last.weight)).sigmoid()

    def attend(self, qkv: Tensor, scale: Tensor, table: Tensor) -> Tensor:
        """Attention inside the windows of images of one grid.

        Args:
            qkv: Queries, keys and values (images, h, w, 3, heads, d).
            scale: Factor of the cosines (heads,).
            table: Position bias ((2w-1)^2, heads).

        Returns:
            (images, hw, D).
        """
        height, width = qkv.shape[1:3]
        cut = windows_of(height, width, window=self.window, shift=self.shift)
        if kernel_path("window_attention", qkv, why_not=_kernel_obstacle(qkv, cut)):
            from models.kernels.window_attention import window_attention  # needs triton

            return window_attention(
                qkv,
                scale,
                table,
                side=cut.side,
                shift=cut.shift,
                count=cut.count,
                min_norm=MIN_NORM,
            )
        index, mask = window_tables(
            height, width, window=self.window, shift=self.shift, device=qkv.device
        )
        # embedding, unlike indexing, has a deterministic and fast backward on every device
        bias = F.embedding(index, table).permute(2, 0, 1).to(qkv.dtype)  # heads L L
        x = _cosine_attention(to_windows(qkv, cut), scale, bias, mask)  # images windows heads L d
        return from_windows(x, cut, height=height, width=width)  # images hw D


class SwinBlock(nn.Module):
    """x + norm(attention(x)), then x + norm(ffn(x))."""

    def __init__(self, width: int, ffn: nn.Module, *, head_dim: int, window: int, shift: int):
        super().__init__()
        self.attention = WindowAttention(width, head_dim=head_dim, window=window, shift=shift)
        self.norm1 = BlockNorm(width)
        self.ffn = ffn
        self.norm2 = BlockNorm(width)

    def forward(self, x: Tensor, layout: Layout, mask: Tensor) -> tuple[Tensor, Routing | None]:
        """Run the block.

        Args:
            x: Packed tokens (N, D) without prompts.
            layout: Their table.
            mask: (N,) bool, the tokens that experts serve.

        Returns:
            Packed (N, D), and the routing of a MoE layer or None.
        """
        x = x + self.norm1(self.attention(x, layout))  # N D
        y, routing = run_ffn(self.ffn, x, layout, mask)  # N D
        return x + self.norm2(y), routing


def _exact(x: Tensor) -> Tensor:
    """``x`` in float32 or better.

    Exponentials and the bias network are computed so: they are small, and bf16 is coarse.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _kernel_obstacle(qkv: Tensor, cut: Windows) -> str | None:
    """Why the kernel does not take these windows, or None."""
    if qkv.dtype not in KERNEL_TYPES:
        return f"the type is {qkv.dtype}, it takes bfloat16, float16 and float32"
    if cut.tokens > KERNEL_TOKENS:
        return f"a window has {cut.tokens} tokens, it takes {KERNEL_TOKENS}"
    if qkv.shape[-1] not in KERNEL_HEAD_DIMS:
        return f"a head has {qkv.shape[-1]} channels, it takes 16, 32 and 64"
    return None


def _cosine_attention(qkv: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled cosine attention inside each window.

    ``qkv`` is (3, images, windows, heads, L, d), ``scale`` (heads,), ``bias`` (heads, L, L),
    ``mask`` (windows, L, L) bool or None. Returns (images, windows, heads, L, d).
    """
    q, k, v = qkv  # images windows heads L d
    images, windows, heads = q.shape[:3]
    q = F.normalize(q, dim=-1, eps=MIN_NORM) * scale[:, None, None].to(q.dtype)
    k = F.normalize(k, dim=-1, eps=MIN_NORM)
    if mask is None:
        fold = 0  # images x windows, heads L d
    else:
        # Windows differ in their mask. They count as heads, so that the bias is stored once for all
        # images.
        fold = 1  # images, windows x heads, L d
        bias = bias.masked_fill(~mask[:, None], -torch.inf)  # windows heads L L
        bias = bias.flatten(0, 1)  # windows x heads, L L
    x = _biased_attention(
        q.flatten(fold, fold + 1),
        k.flatten(fold, fold + 1),
        v.flatten(fold, fold + 1),
        bias[None],
    )
    return x.reshape(images, windows, heads, *x.shape[-2:])


def _biased_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """(A, B, L, d) with bias (1, B, L, L) -> (A, B, L, d), in parts that fit the CUDA grid."""
    outputs = []
    for q_part, k_part, v_part in zip(q.split(MAX_GRID), k.split(MAX_GRID), v.split(MAX_GRID)):
        by_head = zip(
            q_part.split(MAX_GRID, dim=1),
            k_part.split(MAX_GRID, dim=1),
            v_part.split(MAX_GRID, dim=1),
            bias.split(MAX_GRID, dim=1),
        )
        heads = []
        for q_heads, k_heads, v_heads, mask in by_head:
            heads.append(
                F.scaled_dot_product_attention(q_heads, k_heads, v_heads, attn_mask=mask, scale=1.0)
            )
        outputs.append(join(heads, dim=1))
    return join(outputs)
