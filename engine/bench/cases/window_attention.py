"""Attention in shifted windows: the formula as Swin Transformer V2 publishes it against the kernel."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, FORWARD, Case, Goal, Way, Work, exact, leaves
from engine.bench.cases.ways import NO_GPU, compiled, draw, precise, switched, way
from models.backbone.swin_v2 import MIN_NORM, WindowAttention
from models.backbone.windows import window_tables, windows_of

WINDOW, DIM = 8, 32


class Size(NamedTuple):
    """Grids of side x side tokens."""

    images: int
    side: int
    heads: int
    shift: int

    def __str__(self):
        return f"{self.images} x {self.side} x {self.side} tokens, {self.heads} heads, shift {self.shift}"


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
    dtype, heads = precise(device), size.heads
    qkv = draw(size.images, size.side, size.side, 3, heads, DIM, device=device, seed=0).to(dtype)
    scale = torch.linspace(
        2, 12, heads, device=device
    )  # float32, as the table: both come from small float32 networks
    table = 2 * draw((2 * WINDOW - 1) ** 2, heads, device=device, seed=1)
    # made beforehand, as public code does: a compiled formula is not to make them again
    index, mask = window_tables(
        size.side, size.side, window=WINDOW, shift=size.shift, device=device
    )  # L L, windows L L
    plain = partial(formula, index=index, mask=mask, shift=size.shift)
    module = WindowAttention(heads * DIM, head_dim=DIM, window=WINDOW, shift=size.shift)
    library = leaves(qkv, scale, table)
    ways = [
        way("eager", plain, leaves(qkv, scale, table)),
        way("torch.compile", compiled(plain), leaves(qkv, scale, table)),
        # the path of the model without kernels
        Way("SDPA with bias", switched("off", lambda: module.attend(*library)), library),
    ]
    if device.type == "cuda":
        ways.append(
            way("kernel", partial(_kernel, shift=size.shift), leaves(qkv, scale, table), ours=True)
        )
    numbers, width = size.images * size.side**2 * heads * DIM, qkv.element_size()
    return Case(
        "window attention",
        f"{size}, {dtype}".replace("torch.", ""),
        way("exact", plain, exact(qkv, scale, table)),
        tuple(ways),
        tolerance=3e-2 if dtype == torch.bfloat16 else 1e-4,
        products=dtype,
        # q, k, v, result; backward q, k, v, their gradients and that of the result. Two products
        # and five
        work={
            FORWARD: Work(4 * numbers * width, 4 * numbers * WINDOW**2),
            BACKWARD: Work(7 * numbers * width, 10 * numbers * WINDOW**2),
        },
        goals=GOALS if size in SIZES["paper"] and size.images == 16 else (),
        left_out={} if device.type == "cuda" else {"kernel": NO_GPU},
    )


def formula(
    qkv: Tensor, scale: Tensor, table: Tensor, index: Tensor, mask: Tensor | None, shift: int
) -> Tensor:
    """(images, h, w, 3, heads, d), sides a multiple of the window -> (images, hw, D): roll, cut,
    cosine attention with a bias a pair and a mask a window, join, roll back. Logits and softmax in
    float32 or better.

    ``index`` (L, L) and ``mask`` (windows, L, L) or None: see ``window_tables``.
    """
    images, height, width, _, heads, _ = qkv.shape
    x = qkv.roll((-shift, -shift), (1, 2)).unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW))
    x = x.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3)  # 3 images windows heads L d
    q, k, v = F.normalize(x[0], dim=-1, eps=MIN_NORM), F.normalize(x[1], dim=-1, eps=MIN_NORM), x[2]
    bias = F.embedding(index, table).permute(2, 0, 1)  # heads L L
    logits = (q @ k.mT).to(scale.dtype) * scale[:, None, None] + bias  # images windows heads L L
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None], -torch.inf)
    out = logits.softmax(dim=-1).to(v.dtype) @ v  # images windows heads L d
    out = out.unflatten(3, (WINDOW, WINDOW)).unflatten(1, (height // WINDOW, width // WINDOW))
    out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(images, height, width, -1)  # images h w D
    return out.roll((shift, shift), (1, 2)).flatten(1, 2)  # images hw D


def _kernel(qkv: Tensor, scale: Tensor, table: Tensor, shift: int) -> Tensor:
    from models.kernels.window_attention import window_attention  # needs triton

    cut = windows_of(*qkv.shape[1:3], window=WINDOW, shift=shift)
    return window_attention(
        qkv,
        scale,
        table,
        side=cut.side,
        shift=cut.shift,
        count=cut.count,
        min_norm=MIN_NORM,
    )
