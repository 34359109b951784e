"""The experts' work once each token has its expert.

Tokens are sorted by expert, pass two linear layers, and go back to their places, weighted. On a GPU
``run_experts`` runs the kernels of models/kernels/experts.py; ``_reference`` is what these compute.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.dispatch import kernel_path

KERNEL_TYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})


class ExpertFFN(nn.Module):
    """Feed-forward network of a transformer block: linear, GELU, linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))  # ... D


@dataclass
class ExpertOrder:
    """The order of N tokens by their experts, one expert after another."""

    # N int64: the row of each token in that order, -1 for tokens that no expert serves
    row: Tensor
    # E int64: where the rows of each expert end
    ends: Tensor


def sort_by_expert(expert: Tensor, place: Tensor, *, kept: Tensor, sizes: Tensor) -> ExpertOrder:
    """Order tokens by expert. The host does not wait for the device.

    Args:
        expert: (N,) int64, the expert of each token.
        place: (N,) int64, position among the tokens of the same expert.
        kept: (N,) bool, whether the expert serves the token.
        sizes: (E,) int64, kept tokens of each expert.
    """
    ends = sizes.cumsum(0)  # E
    row = (ends - sizes).gather(0, expert.clamp(min=0)) + place  # N
    return ExpertOrder(row.masked_fill(~kept, -1), ends)


def run_experts(
    x: Tensor,
    order: ExpertOrder,
    weight: Tensor,
    experts: Sequence[nn.Module],
    *,
    fused: bool = True,
) -> Tensor:
    """Compute weight[n] x expert(x[n]) for each token with a row, and zero for the others.

    Args:
        x: Tokens (N, D). Tokens without a row give 0, even if NaN.
        order: As of ``sort_by_expert``.
        weight: (N,).
        experts: E networks of the kind ``ExpertFFN``.
        fused: Whether the kernels may run.

    Returns:
        (N, D), differentiable in ``x``, ``weight`` and the experts.
    """
    networks = cast(Sequence[ExpertFFN], experts)
    if fused and len(x) and kernel_path("experts", x, why_not=_kernel_obstacle(x, networks)):
        # imports triton, which a machine without a GPU may lack
        from models.kernels import experts as kernel

        return kernel.run_experts(x, networks, row=order.row, ends=order.ends, weight=weight)
    return _reference(x, order, weight, networks)


def _kernel_obstacle(x: Tensor, experts: Sequence[ExpertFFN]) -> str | None:
    """Why the kernels do not take these tokens and experts, or None."""
    types = {x.dtype}
    for expert in experts:
        types |= {parameter.dtype for parameter in expert.parameters()}
    if len(types) > 1 or not types <= KERNEL_TYPES:
        names = " and ".join(sorted(str(dtype) for dtype in types))
        return (
            f"the types of tokens and experts are {names}, they take one of bfloat16, float16 and "
            "float32"
        )
    if torch.is_autocast_enabled(x.device.type):
        return "they do not change types, as autocast asks for"
    return None


def _reference(
    x: Tensor, order: ExpertOrder, weight: Tensor, experts: Sequence[ExpertFFN]
) -> Tensor:
    """What ``run_experts`` gives, in PyTorch: each expert on exactly its own tokens.

    On a GPU the host waits for the sizes.
    """
    cuts = [0, *order.ends.tolist()]
    # rows, the token of each
    tokens = order.row.where(order.row >= 0, len(x)).argsort()[: cuts[-1]]
    parts = x[tokens].split([end - start for start, end in itertools.pairwise(cuts)])
    # experts without tokens run too: their gradient is zero, not missing
    outputs = torch.cat(
        [expert(part) for expert, part in zip(experts, parts, strict=True)]
    )  # rows D
    weighted = (outputs * weight[tokens][:, None]).to(outputs.dtype)  # rows D
    return weighted.new_zeros(x.shape).index_copy(0, tokens, weighted)  # N D
