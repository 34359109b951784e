"""Sinkhorn-Knopp: soft assignments that use all prototypes alike, in the log domain.

The textbook form alternates two scalings of Q = exp(scores / epsilon): columns (prototypes) to
equal sums, then rows to equal sums. Here the logarithms of the scalings are kept instead, so
nothing under- or overflows. The constants of the textbook (1/K, 1/N) are one factor for all
entries, which the last row scaling removes; they are left out.

On a GPU both functions run the kernels of models/kernels/sinkhorn.py; ``_reference`` is what these
compute.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from models.errors import ModelError
from models.kernels.dispatch import kernel_path
from models.reducer import Reducer

# Rows and columns a pass looks at together: its temporaries stay small beside N K, also for 65,536
# prototypes.
ROWS, COLUMNS = 1024, 4096


@torch.no_grad()
def sinkhorn(
    scores: Tensor, epsilon: float, iterations: int, mask: Tensor, reducer: Reducer
) -> Tensor:
    """Assignments over the global batch, whose rows are spread over the ranks; no gradient.

    ``scores`` (N, K), ``mask`` (N,) bool -> (N, K) float32. Valid rows sum to one, masked rows are
    zero and have no influence, NaN included. N may differ between ranks and may be zero. Each
    iteration exchanges 2 K numbers. Raises ModelError unless epsilon > 0 and iterations >= 1.
    """
    return _assign(
        scores, mask, epsilon, iterations, lambda columns: log_sum_over_ranks(columns, reducer)
    )


@torch.no_grad()
def sinkhorn_many(scores: Tensor, mask: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Many small problems at once, each of this rank alone; no gradient.

    ``scores`` (..., N, M), ``mask`` (..., N) bool -> (..., N, M) float32, as ``sinkhorn`` does for
    each problem.
    """
    return _assign(scores, mask, epsilon, iterations)


def log_sum_over_ranks(sums: Tensor, reducer: Reducer) -> Tensor:
    """Logarithms (K,) of sums over this rank's rows -> those of the global sums. Exchanges 2 K
    numbers."""
    peak = reducer.max(sums).clamp(min=torch.finfo(sums.dtype).min)  # K; -inf - -inf would be NaN
    return reducer.sum((sums - peak).exp()).log() + peak  # K


def _assign(
    scores: Tensor,
    mask: Tensor,
    epsilon: float,
    iterations: int,
    over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``over_ranks`` turns the logarithms of local column sums into those of the global ones; None:
    all is local."""
    if epsilon <= 0 or iterations < 1:
        raise ModelError(
            f"sinkhorn: expected epsilon > 0 and iterations >= 1, found {epsilon} and {iterations}"
        )
    if mask.shape != scores.shape[:-1]:
        raise ModelError(
            f"sinkhorn: expected a mask of shape {tuple(scores.shape[:-1])}, found {tuple(mask.shape)}"
        )
    if kernel_path("sinkhorn", scores):
        from models.kernels import (
            sinkhorn as kernel,  # imports triton, which a machine without a GPU may lack
        )

        return kernel.assign(scores, mask, epsilon, iterations, over_ranks)
    return _reference(scores, mask, epsilon, iterations, over_ranks)


def _reference(
    scores: Tensor,
    mask: Tensor,
    epsilon: float,
    iterations: int,
    over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What ``_assign`` gives, in PyTorch."""
    x = scores.float().where(mask[..., None], 0.0) / epsilon  # ... N K
    # log scalings of the rows; masked rows have weight exp(-inf) = 0 in every column
    rows = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)  # ... N
    for step in range(iterations):
        sums = [(part + rows[..., None]).logsumexp(dim=-2) for part in x.split(COLUMNS, dim=-1)]
        columns = torch.cat(sums, dim=-1)  # ... K
        x -= (over_ranks(columns) if over_ranks else columns)[
            ..., None, :
        ]  # ... N K, columns scaled
        if step < iterations - 1:
            scale = -torch.cat(
                [part.logsumexp(dim=-1) for part in x.split(ROWS, dim=-2)], dim=-1
            )  # ... N
            rows = scale.where(mask, -torch.inf)  # ... N
    # the last row scaling; softmax keeps the sums at one whatever the rounding of large scores
    return x.softmax(dim=-1).where(mask[..., None], 0.0)
