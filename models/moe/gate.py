"""The gate of a MoE layer: which expert each token goes to, and whether the expert has room."""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.spec import MoESpec

# The largest load over the mean load, where tensors have no values to count.
ASSUMED_IMBALANCE = 1.5


@dataclass
class Choice:
    """The gate's answer for N tokens, before and after the capacity limit."""

    probabilities: Tensor  # N E, at least float32, zero rows for masked tokens
    expert: Tensor  # N int64, -1 for masked tokens
    place: Tensor  # N int64, turn among the tokens of the same expert
    counts: Tensor  # E int64, tokens that chose each expert
    capacity: int  # slots of an expert
    kept: Tensor  # N bool, valid and within the capacity
    weight: Tensor  # N gate value, zero where not kept


def capacity_limit(tokens: int, spec: MoESpec) -> int:
    """Slots of an expert for a number of tokens.

    Returns:
        factor x tokens / experts rounded up, at least min_capacity, at most ``tokens``. At least 1:
        DeepSpeed's layer cannot exchange empty buffers.
    """
    slots = math.ceil(spec.capacity_factor * tokens / spec.experts)
    slots = max(slots, spec.min_capacity)
    return max(min(slots, tokens), 1)


def choose(
    x: Tensor, weight: Tensor, kind: Tensor, *, capacity: int | None, group: Any = None
) -> Choice:
    """Choose one expert for each token, and who is served where an expert is full.

    Computed in float32 or better.

    Args:
        x: Tokens (N, D).
        weight: The gate matrix (E, D).
        kind: (N,) int64, which tokens are of one kind: a sensor in views of one size. Negative for
            tokens that no expert serves.
        capacity: Slots of an expert. None drops nothing: the capacity becomes the largest load over
            the ranks of ``group``, which must agree on the shape of their exchange.
        group: DeepSpeed's process group of the ranks that share the experts; None for one rank.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    absent = kind < 0  # N
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        # The fill comes before the product. Otherwise a NaN in an absent token would reach the
        # gradient of the gate.
        present = x.to(exact).masked_fill(absent[:, None], 0)  # N D
        logits = F.linear(present, weight.to(exact))  # N E
        probabilities = logits.softmax(1).masked_fill(absent[:, None], 0)  # N E
    expert = probabilities.argmax(1).masked_fill(absent, -1)  # N
    hit = expert[:, None] == torch.arange(len(weight), device=x.device)  # N E
    counts = hit.sum(0)  # E
    value = probabilities.gather(1, expert.clamp(min=0)[:, None])[:, 0]  # N
    place = _places(expert, value, kind=kind, counts=counts)  # N
    if capacity is None:
        capacity = _largest(counts, len(x), group)
    kept = ~absent & (place < capacity)  # N
    return Choice(
        probabilities=probabilities,
        expert=expert,
        place=place,
        counts=counts,
        capacity=capacity,
        kept=kept,
        weight=value.masked_fill(~kept, 0),
    )


@torch.no_grad()
def _places(expert: Tensor, value: Tensor, *, kind: Tensor, counts: Tensor) -> Tensor:
    """Turn of each token among those of its expert.

    The largest gate values come first ("batch prioritized routing", Riquelme et al., NeurIPS 2021,
    the supplement's reference 28), but each kind by itself, and the kinds take turns in proportion
    to their tokens. So a full expert drops the same share of every kind, wherever its tokens lie on
    the packed axis and however sure the gate is of them. Equal turns keep the packed order. Nothing
    is drawn: a block that is computed again drops the same tokens.

    Args:
        expert: (N,) int64, -1 for masked tokens, whose turns mean nothing.
        value: (N,).
        kind: (N,) int64, negative for masked tokens.
        counts: (E,) int64, tokens of each expert.
    """
    number = torch.arange(len(expert), device=expert.device)  # N
    # values are at most one, so float64 sorts by kind and expert first
    key = kind * len(counts) + expert  # N
    order = (key - value.double()).argsort(stable=True)  # N
    key = key[order].contiguous()  # N, ascending
    begin = torch.searchsorted(key, key)  # N
    end = torch.searchsorted(key, key, right=True)  # N
    relative = (number - begin + 0.5).double() / (end - begin)  # N, between 0 and 1
    # likewise by expert first; masked tokens come before all others
    order = order[(expert[order] + relative).argsort(stable=True)]  # N
    begins = len(expert) - counts.sum() + counts.cumsum(0) - counts  # E
    place = number - begins.gather(0, expert[order].clamp(min=0))  # N, in that order
    return torch.empty_like(place).scatter_(0, order, place)


def gate_matrix(gate: nn.Linear, spec: MoESpec) -> Tensor:
    """The gate's weight (E, D), detached if the gate is fixed.

    A fixed gate stays a parameter, so that all models save alike.
    """
    if spec.fixed_gate:
        return gate.weight.detach()
    return gate.weight


def _largest(counts: Tensor, tokens: int, group: Any) -> int:
    """The largest load (E,) over all ranks of the group, at least 1."""
    largest = counts.max()
    if group is not None:
        from deepspeed import comm

        comm.all_reduce(largest, op=comm.ReduceOp.MAX, group=group)
    if counts.is_meta:
        return max(int(ASSUMED_IMBALANCE * tokens / len(counts)), 1)
    return max(int(largest), 1)
