"""Stochastic depth that saves its computation (Huang et al., ECCV 2016; over samples as in DINOv2).

A block runs on a random part of the images and its change is scaled up, so that the expected output
is the full one. The number of images that a group keeps is fixed, so all ranks exchange equally
many tokens with the experts. The choice follows from the run's seed, the step and the block, and is
the same on all ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from models.backbone.prompts import drop_prefix
from models.initialise import generator
from models.moe.layer import Routing
from models.packing import Layout

Block = Callable[[Tensor, Layout, Tensor], tuple[Tensor, Routing | None]]


class Draw(NamedTuple):
    """What the random choices of a step follow from."""

    seed: int
    step: int


@dataclass
class Subset:
    """The tokens of some images of a packed batch of N tokens."""

    layout: Layout  # of these images alone
    # M int64: place of each of their tokens in the whole batch
    rows: Tensor
    # N int64: place of each token of the batch in the subset, M for tokens of other images
    places: Tensor
    # M 1: images of the group / images of it in the subset
    scale: Tensor


def images_kept(images: int, rate: float) -> int:
    """Images of a group on which a block runs: the nearest number, at least one."""
    return max(1, round(images * (1 - rate)))


def choose(layout: Layout, *, rate: float, draw: Draw, block: str) -> list[Tensor]:
    """Choose the images of each group on which a block runs.

    Args:
        layout: The table of the packed batch.
        rate: Share of the images that the block leaves out.
        draw: The run's seed and the step.
        block: The block's name; each has a choice of its own.

    Returns:
        Numbers of images, ascending, one tensor (kept,) int64 a group, on the CPU.
    """
    random = generator(draw.seed, f"stochastic depth, step {draw.step}, {block}")
    chosen = []
    for group in layout.groups:
        order = torch.randperm(group.images, generator=random)
        chosen.append(order[: images_kept(group.images, rate)].sort().values)
    return chosen


def subset(x: Tensor, layout: Layout, images: Sequence[Tensor]) -> Subset:
    """The tokens of some images. The host does not wait for the device.

    Args:
        x: Packed (N, D); gives the device and the type.
        layout: The table of the packed batch.
        images: Numbers of images, one tensor a group, as of ``choose``.
    """
    device = x.device
    counts = [len(numbers) for numbers in images]
    # one copy to the device for all groups
    on_device = torch.cat(list(images)).to(device, non_blocking=True).split(counts)
    row_parts = []
    scale_parts = []
    groups = []
    begin = 0
    for group, numbers, count in zip(layout.groups, on_device, counts, strict=True):
        first_image = torch.arange(begin, begin + group.length, device=device)  # length
        group_rows = (numbers[:, None] * group.length + first_image).flatten()  # count x length
        row_parts.append(group_rows)
        scale = group.images / count
        scale_parts.append(torch.full((len(group_rows), 1), scale, dtype=x.dtype, device=device))
        groups.append(replace(group, images=count))
        begin += group.tokens
    rows = torch.cat(row_parts)  # M
    number = torch.arange(rows.shape[0], device=device)  # M
    places = torch.full((begin,), rows.shape[0], device=device).scatter(0, rows, number)  # N
    return Subset(Layout(tuple(groups)), rows, places, scale=torch.cat(scale_parts))


def run_on_some(
    block: Block, x: Tensor, layout: Layout, mask: Tensor, *, images: Sequence[Tensor]
) -> tuple[Tensor, Routing | None]:
    """Run a block on some images; the others pass unchanged.

    Args:
        block: Maps packed (M, D), its table and mask (M,) to (M, D), or (M', D) if it drops the
            prompts, and a routing.
        x: Packed tokens (N, D) of all images.
        layout: Their table.
        mask: (N,) bool.
        images: Numbers of images, one tensor a group.

    Returns:
        Packed (N, D), or (N', D) without prompts, and the routing.
    """
    some = subset(x, layout, images)
    inputs = _Move.apply(x, some.rows, some.places)  # M D
    outputs, routing = block(inputs, some.layout, mask[some.rows])
    if outputs.shape[0] != inputs.shape[0]:  # the block dropped the prompts
        inputs, _ = drop_prefix(inputs, some.layout)  # M' D
        x, layout = drop_prefix(x, layout)  # N' D
        some = subset(x, layout, images)
    change = (outputs - inputs) * some.scale  # M D
    return x + _Move.apply(change, some.places, some.rows), routing


class _Move(torch.autograd.Function):
    """Rows (A, D) to (B, D): row b is row ``forward_index[b]``, or zero if that is A.

    ``backward_index`` does the same for the gradient. Both directions only read. The backward of
    indexing adds where it writes instead, which is slow where it must be deterministic.
    """

    @staticmethod
    def forward(ctx, x: Tensor, forward_index: Tensor, backward_index: Tensor) -> Tensor:
        """Rows of x (A, D) at ``forward_index`` (B,); ``backward_index`` (A,) is its inverse."""
        ctx.save_for_backward(backward_index)
        return _gather(x, forward_index)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        """Gradient (A, D) of x; the indices have none."""
        (backward_index,) = ctx.saved_tensors
        return _gather(grad, backward_index), None, None


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (A, D) at ``index`` (B,), zero where it is A."""
    rows = x.index_select(0, index.clamp(max=x.shape[0] - 1))  # B D
    return rows.masked_fill_((index == x.shape[0])[:, None], 0)
