"""Sinkhorn-Knopp: soft assignments that use all prototypes equally, in the log domain.

The textbook form alternates two scalings of Q = exp(scores / epsilon): columns (prototypes) to
equal sums, then rows to equal sums. Here the logarithms of the scalings are kept instead, so
nothing under- or overflows. The constants of the textbook (1/K, 1/N) are one factor for all
entries, which the last row scaling removes. They are left out.

On a GPU both functions run the kernels of models/kernels/sinkhorn.py; ``_reference`` is what these
compute.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.errors import ModelError
from models.kernels.dispatch import kernel_path
from models.reducer import Reducer

# Rows and columns that a pass looks at together. Its temporaries stay small beside N K, also for
# 65,536 prototypes.
ROWS = 1024
COLUMNS = 4096

# Logarithms (..., K) of column sums over some of the rows -> those over all of them.
ColumnSums = Callable[[Tensor], Tensor]


@torch.no_grad()
def sinkhorn(
    scores: Tensor, mask: Tensor, *, epsilon: float, iterations: int, reducer: Reducer
) -> Tensor:
    """Assign the rows of the global batch, which are spread over the ranks; no gradient.

    Each iteration exchanges 2 K numbers.

    Args:
        scores: (N, K) of this rank. N may differ between ranks and may be zero.
        mask: (N,) bool, the valid rows.
        epsilon: Temperature, more than 0.
        iterations: At least 1.
        reducer: Collectives over the ranks.

    Returns:
        (N, K) float32. Valid rows sum to one. Masked rows are zero and have no influence, even if
        NaN.

    Raises:
        ModelError: ``epsilon`` or ``iterations`` is too small, or the mask has another shape.
    """
    column_sums = partial(log_sum_over_ranks, reducer=reducer)
    return _assign(scores, mask, epsilon=epsilon, iterations=iterations, column_sums=column_sums)


@torch.no_grad()
def sinkhorn_many(
    scores: Tensor,
    mask: Tensor,
    *,
    epsilon: float,
    iterations: int,
    column_sums: ColumnSums | None = None,
) -> Tensor:
    """Solve many small problems at once, each of this rank alone by default; no gradient.

    Args:
        scores: (..., N, M).
        mask: (..., N) bool, the valid rows.
        epsilon: Temperature, more than 0.
        iterations: At least 1.
        column_sums: Joins problems that are parts of a larger one: logarithms (..., M) of the sums
            over the rows of each part -> those over the rows of the whole.

    Returns:
        (..., N, M) float32, for each problem as of ``sinkhorn``.

    Raises:
        ModelError: As of ``sinkhorn``.
    """
    return _assign(scores, mask, epsilon=epsilon, iterations=iterations, column_sums=column_sums)


def log_sum_over_ranks(sums: Tensor, reducer: Reducer) -> Tensor:
    """Logarithms (K,) of sums over this rank's rows -> those of the global sums.

    Exchanges 2 K numbers.
    """
    peak = reducer.max(sums)  # K
    peak = peak.clamp(min=torch.finfo(sums.dtype).min)  # K; -inf - -inf would be NaN
    return reducer.sum((sums - peak).exp()).log() + peak  # K


def _assign(
    scores: Tensor,
    mask: Tensor,
    *,
    epsilon: float,
    iterations: int,
    column_sums: ColumnSums | None = None,
) -> Tensor:
    """Check the arguments, and run the kernels or the reference.

    Without ``column_sums`` each problem is this rank's alone.
    """
    if epsilon <= 0 or iterations < 1:
        raise ModelError(
            f"sinkhorn: expected epsilon > 0 and iterations >= 1, found {epsilon} and "
            f"{iterations}; correct them"
        )
    if mask.shape != scores.shape[:-1]:
        raise ModelError(
            f"sinkhorn: expected a mask of shape {tuple(scores.shape[:-1])}, found "
            f"{tuple(mask.shape)}; pass one flag a row"
        )
    if kernel_path("sinkhorn", scores):
        # imports triton, which a machine without a GPU may lack
        from models.kernels import sinkhorn as kernel

        return kernel.assign(
            scores,
            mask,
            epsilon=epsilon,
            iterations=iterations,
            column_sums=column_sums,
        )
    return _reference(scores, mask, epsilon=epsilon, iterations=iterations, column_sums=column_sums)


def _reference(
    scores: Tensor,
    mask: Tensor,
    *,
    epsilon: float,
    iterations: int,
    column_sums: ColumnSums | None = None,
) -> Tensor:
    """What ``_assign`` gives, in PyTorch."""
    x = scores.float().where(mask[..., None], 0.0) / epsilon  # ... N K
    # log scalings of the rows; masked rows have weight exp(-inf) = 0 in every column
    rows = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -torch.inf)  # ... N
    for step in range(iterations):
        columns = _column_sums(x, rows)  # ... K
        if column_sums is not None:
            columns = column_sums(columns)  # ... K
        x -= columns[..., None, :]  # ... N K, columns scaled
        if step < iterations - 1:
            rows = (-_row_sums(x)).where(mask, -torch.inf)  # ... N
    # the last row scaling; softmax keeps the sums at one whatever the rounding of large scores
    return x.softmax(dim=-1).where(mask[..., None], 0.0)


def _column_sums(x: Tensor, rows: Tensor) -> Tensor:
    """Logarithms (..., K) of the sums over the rows of x (..., N, K) scaled by ``rows``."""
    sums = []
    for part in x.split(COLUMNS, dim=-1):
        sums.append((part + rows[..., None]).logsumexp(dim=-2))
    return torch.cat(sums, dim=-1)


def _row_sums(x: Tensor) -> Tensor:
    """Logarithms (..., N) of the sums over the columns of x (..., N, K)."""
    return torch.cat([part.logsumexp(dim=-1) for part in x.split(ROWS, dim=-2)], dim=-1)
