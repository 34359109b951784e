"""The experts' work once each token has its expert: sort, two linear layers, back to the tokens'
places, weighted.

On a GPU ``run_experts`` is the kernels of models/kernels/experts.py; ``_reference`` is what these
compute.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.kernels.dispatch import kernel_path


class ExpertFFN(nn.Module):
    """Feed-forward network of a transformer block: linear, GELU, linear; (..., D) -> (..., D)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))  # ... D


def sort_by_expert(
    expert: Tensor, place: Tensor, kept: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """Where each token's row lies among those of all experts, one expert after another, and where
    each expert ends.

    ``expert`` (N,) int64, ``place`` (N,) int64 among the tokens of the same expert, ``kept`` (N,)
    bool, ``sizes`` (E,) int64 kept tokens of each expert -> row (N,) int64, -1 where not kept, and
    ends (E,) int64. Nothing is fetched from the device.
    """
    ends = sizes.cumsum(0)  # E
    row = (ends - sizes).gather(0, expert.clamp(min=0)) + place  # N
    return row.masked_fill(~kept, -1), ends


def run_experts(
    x: Tensor,
    row: Tensor,
    ends: Tensor,
    weight: Tensor,
    experts: Sequence[ExpertFFN],
    fused: bool = True,
) -> Tensor:
    """weight[n] x expert(x[n]) for each token with a row, zero for the others: (N, D) -> (N, D).

    ``row`` (N,) and ``ends`` (E,) as from ``sort_by_expert``, ``weight`` (N,). Differentiable in x,
    weight and the experts; what has no row takes no part, NaN included. ``fused``: with the
    kernels, where they run.
    """
    if fused and len(x) and kernel_path("experts", x, why_not=_beyond_kernel(x, experts)):
        from models.kernels import (
            experts as kernel,  # imports triton, which a machine without a GPU may lack
        )

        return kernel.run_experts(x, row, ends, weight, experts)
    return _reference(x, row, ends, weight, experts)


def _beyond_kernel(x: Tensor, experts: Sequence[ExpertFFN]) -> str | None:
    """What the kernels do not take, if anything."""
    types = {x.dtype, *(p.dtype for expert in experts for p in expert.parameters())}
    if len(types) > 1 or not types <= {torch.bfloat16, torch.float16, torch.float32}:
        found = " and ".join(sorted(map(str, types)))
        return f"the types of tokens and experts are {found}, they take one of bfloat16, float16 and float32"
    if torch.is_autocast_enabled(x.device.type):
        return "they do not change types, as autocast asks for"
    return None


def _reference(
    x: Tensor, row: Tensor, ends: Tensor, weight: Tensor, experts: Sequence[ExpertFFN]
) -> Tensor:
    """What ``run_experts`` gives, in PyTorch: one expert after another, each on exactly its own
    tokens.

    On a GPU the host waits for the sizes.
    """
    cuts = [0, *ends.tolist()]
    order = row.where(row >= 0, len(x)).argsort()[: cuts[-1]]  # rows, the token of each
    parts = x[order].split([end - start for start, end in zip(cuts, cuts[1:])])
    # experts without tokens run too: their gradient is zero, not missing
    outputs = torch.cat(
        [expert(part) for expert, part in zip(experts, parts, strict=True)]
    )  # rows D
    weighted = (outputs * weight[order][:, None]).to(outputs.dtype)  # rows D
    return weighted.new_zeros(x.shape).index_copy(0, order, weighted)  # N D
