"""Stochastic depth that saves its computation (Huang et al., ECCV 2016; over samples as in DINOv2).

A block runs on a random part of the images and its change is scaled up, so that the expected output
is the full one. Of every group the same number of images stays, whatever is drawn: all ranks
exchange equally many tokens with the experts. What is drawn follows from the run's seed, the step
and the block, and is the same on all ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from models.backbone.packing import Layout
from models.backbone.prompts import drop_prefix
from models.initialise import generator


class Draw(NamedTuple):
    """What a step's random choices follow from."""

    seed: int
    step: int


class Subset(NamedTuple):
    """Tokens of some images of a packed batch."""

    layout: Layout  # of these images alone
    rows: Tensor  # M int64: where each of their tokens stands among all
    places: (
        Tensor  # N int64: where each of all tokens stands among theirs, M for those of other images
    )
    scale: Tensor  # M 1: images of the group / images of it that stay


def kept(images: int, rate: float) -> int:
    """Images of a group on which a block runs: the nearest number, at least one."""
    return max(1, round(images * (1 - rate)))


def choose(layout: Layout, rate: float, draw: Draw, block: str) -> list[Tensor]:
    """Images of each group on which a block of this name runs: a list of (kept,) int64 on the CPU,
    ascending."""
    random = generator(draw.seed, f"stochastic depth, step {draw.step}, {block}")
    return [
        torch.randperm(group.images, generator=random)[: kept(group.images, rate)].sort().values
        for group in layout.groups
    ]


def subset(x: Tensor, layout: Layout, images: Sequence[Tensor]) -> Subset:
    """The tokens of the given ``images`` of each group of packed x (N, D), lists as of ``choose``.
    No host wait."""
    device = x.device
    counts = [len(chosen) for chosen in images]
    chosen = torch.cat(list(images)).to(device, non_blocking=True).split(counts)
    rows, scale, begin = [], [], 0
    for group, mine in zip(layout.groups, chosen, strict=True):
        tokens = torch.arange(
            begin, begin + group.length, device=device
        )  # of the group's first image
        rows.append((mine[:, None] * group.length + tokens).flatten())  # kept x length
        scale.append(
            torch.full(
                (rows[-1].shape[0], 1), group.images / len(mine), dtype=x.dtype, device=device
            )
        )
        begin += group.tokens
    rows = torch.cat(rows)  # M
    number = torch.arange(rows.shape[0], device=device)  # M
    places = torch.full((begin,), rows.shape[0], device=device).scatter(0, rows, number)  # N
    groups = tuple(replace(group, images=count) for group, count in zip(layout.groups, counts))
    return Subset(Layout(groups), rows, places, torch.cat(scale))


def run_on_some(
    block: Callable, x: Tensor, layout: Layout, mask: Tensor, images: Sequence[Tensor]
) -> tuple[Tensor, object, Layout]:
    """``block`` on the given images of each group; the others pass by it, untouched.

    ``block`` maps packed (M, D), layout and mask (M,) to (M, D), or (M', D) if it drops the
    prompts, and a routing. Returns packed (N, D), or (N', D); the routing; and the layout that the
    block saw.
    """
    some = subset(x, layout, images)
    part = _Move.apply(x, some.rows, some.places)  # M D
    y, routing = block(part, some.layout, mask[some.rows])
    seen = some.layout
    if y.shape[0] != part.shape[0]:  # the prompts are gone
        (x, layout), (part, _) = drop_prefix(x, layout), drop_prefix(part, some.layout)
        some = subset(x, layout, images)
    change = (y - part) * some.scale  # M D
    return x + _Move.apply(change, some.places, some.rows), routing, seen


class _Move(torch.autograd.Function):
    """Rows (A, D) to (B, D): row b is row ``forth[b]``, zero if that is A. ``back`` is the way of
    the gradient.

    Both ways only read: indexing's own backward adds where it writes, which is slow where it must
        be deterministic.
    """

    @staticmethod
    def forward(ctx, x: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(forth, back)
        return _gather(x, forth)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _gather(grad, ctx.saved_tensors[1]), None, None


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (A, D) at ``index`` (B,), zero where it is A."""
    found = x.index_select(0, index.clamp(max=x.shape[0] - 1))  # B D
    return found.masked_fill_((index == x.shape[0])[:, None], 0)
