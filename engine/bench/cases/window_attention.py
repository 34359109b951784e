"""Attention in shifted windows: the published formula of Swin Transformer V2 against the kernel."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, FORWARD, Candidate, Case, Goal, Work, exact, leaves
from engine.bench.cases.candidates import (
    NO_GPU,
    candidate,
    compiled,
    draw,
    precise,
    switched,
    type_name,
)
from models.backbone.swin_v2 import MIN_NORM, WindowAttention
from models.backbone.windows import window_tables, windows_of

WINDOW = 8
DIM = 32


class Size(NamedTuple):
    """Grids of side x side tokens."""

    images: int
    side: int
    heads: int
    shift: int

    def __str__(self) -> str:
        grid = f"{self.side} x {self.side}"
        return f"{self.images} x {grid} tokens, {self.heads} heads, shift {self.shift}"


SIZES = {
    # 512 pixels of HR, batch 16: stages 1 and 2; then a Sentinel sensor's 16 x 16 cells in 20
    # frames and two views
    "paper": [
        Size(16, 128, 11, 0),
        Size(16, 128, 11, 4),
        Size(16, 64, 22, 0),
        Size(16, 64, 22, 4),
        Size(640, 16, 11, 4),
    ],
    "small": [Size(2, 32, 4, 4), Size(1, 64, 11, 4)],
    "tiny": [Size(1, 16, 2, 4)],
}
GOALS = (
    Goal(FORWARD, "speed", 4, "eager"),
    Goal(FORWARD, "copy", 0.6),
    Goal(BACKWARD, "speed", 2.5, "eager"),
    Goal(BACKWARD, "speed", 1, "torch.compile"),
)


def case(size: Size, device: torch.device) -> Case:
    """Eager and compiled formula, the library's attention with a bias, the kernel."""
    dtype = precise(device)
    heads = size.heads
    qkv = draw(size.images, size.side, size.side, 3, heads, DIM, device=device, seed=0).to(dtype)
    # float32, as the table: both come from small float32 networks
    scale = torch.linspace(2, 12, heads, device=device)
    table = 2 * draw((2 * WINDOW - 1) ** 2, heads, device=device, seed=1)
    # made beforehand, as public code does: a compiled formula is not to make them again
    index, mask = window_tables(
        size.side, size.side, window=WINDOW, shift=size.shift, device=device
    )  # L L, windows L L
    plain = partial(formula, index=index, mask=mask, shift=size.shift)
    module = WindowAttention(heads * DIM, head_dim=DIM, window=WINDOW, shift=size.shift)
    library = leaves(qkv, scale, table)
    without_kernels = switched("off", lambda: module.attend(*library))
    candidates = [
        candidate("eager", plain, leaves(qkv, scale, table)),
        candidate("torch.compile", compiled(plain), leaves(qkv, scale, table)),
        Candidate("SDPA with bias", without_kernels, library),  # the model's path without kernels
    ]
    left_out = {"kernel": NO_GPU}
    if device.type == "cuda":
        kernel = partial(_kernel, shift=size.shift)
        candidates.append(candidate("kernel", kernel, leaves(qkv, scale, table), ours=True))
        left_out = {}
    numbers = size.images * size.side**2 * heads * DIM
    width = qkv.element_size()
    return Case(
        "window attention",
        f"{size}, {type_name(dtype)}",
        candidate("exact", plain, exact(qkv, scale, table)),
        tuple(candidates),
        tolerance=3e-2 if dtype == torch.bfloat16 else 1e-4,
        products=dtype,
        # q, k, v, result; backward q, k, v, their gradients and that of the result. Two products
        # and five
        work={
            FORWARD: Work(4 * numbers * width, 4 * numbers * WINDOW**2),
            BACKWARD: Work(7 * numbers * width, 10 * numbers * WINDOW**2),
        },
        goals=GOALS if size in SIZES["paper"] and size.images == 16 else (),
        left_out=left_out,
    )


def formula(
    qkv: Tensor, scale: Tensor, table: Tensor, *, index: Tensor, mask: Tensor | None, shift: int
) -> Tensor:
    """Attention as published: roll, cut, cosine attention, join, roll back.

    Logits and softmax are in float32 or better.

    Args:
        qkv: (images, h, w, 3, heads, d), sides a multiple of the window.
        scale: Of the logits, (heads,).
        table: Bias of each offset in a window, ((2 WINDOW - 1)^2, heads).
        index: Row of ``table`` for each pair, (L, L); see ``window_tables``.
        mask: Which pairs of a window see each other, (windows, L, L), or None for all.
        shift: Tokens by which the windows are shifted.

    Returns:
        (images, h w, D).
    """
    images, height, width = qkv.shape[:3]
    x = qkv.roll((-shift, -shift), (1, 2)).unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW))
    x = x.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3)  # 3 images windows heads L d
    q = F.normalize(x[0], dim=-1, eps=MIN_NORM)
    k = F.normalize(x[1], dim=-1, eps=MIN_NORM)
    v = x[2]
    bias = F.embedding(index, table).permute(2, 0, 1)  # heads L L
    logits = (q @ k.mT).to(scale.dtype) * scale[:, None, None] + bias  # images windows heads L L
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None], -torch.inf)
    out = logits.softmax(dim=-1).to(v.dtype) @ v  # images windows heads L d
    out = out.unflatten(3, (WINDOW, WINDOW)).unflatten(1, (height // WINDOW, width // WINDOW))
    out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(images, height, width, -1)  # images h w D
    return out.roll((shift, shift), (1, 2)).flatten(1, 2)  # images hw D


def _kernel(qkv: Tensor, scale: Tensor, table: Tensor, *, shift: int) -> Tensor:
    """The Triton kernel."""
    from models.kernels.window_attention import window_attention  # needs triton

    height, width = qkv.shape[1:3]
    cut = windows_of(height, width, window=WINDOW, shift=shift)
    return window_attention(
        qkv,
        scale,
        table,
        side=cut.side,
        shift=cut.shift,
        count=cut.count,
        min_norm=MIN_NORM,
    )
