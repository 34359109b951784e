"""Sinkhorn-Knopp in Triton.

The reference, whose semantics these kernels keep, is models/fusion/sinkhorn.py.

One program solves a problem whose padded size is at most ``WHOLE``: it reads the problem once,
keeps it in registers and writes it once. Larger ones, and those whose rows are spread over ranks,
take two launches an iteration with the scores left as they are:

    c_k = log sum_n exp(x_nk + u_n)    over ranks too, between the launches
    u_n = -log sum_k exp(x_nk - c_k)   and the last time: softmax_k(x_nk - c_k), the assignments

with x = scores / epsilon. Sums over rows run in spans of fixed length whose results a second launch
adds: no atomics, so the same input gives the same bits.
"""

from collections.abc import Callable

import torch
import triton
from torch import Tensor

from models.kernels.gpu import is_gpu, processors
from models.kernels.sinkhorn_kernels import (
    add_spans_kernel,
    columns_kernel,
    rows_kernel,
    whole_kernel,
)

# Entries of the largest problem of one program, float32: half the registers of a multiprocessor of
# compute capability 8 or 9.
WHOLE = 32768
SPAN = 512  # rows of a partial column sum
COLUMN_TILE = 256  # columns of a program that sums the rows of a span
NARROW_TILE = 64  # columns of a program that adds spans


def assign(
    scores: Tensor,
    mask: Tensor,
    *,
    epsilon: float,
    iterations: int,
    column_sums: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Assign rows to columns; no gradient.

    Args:
        scores: (..., N, M) of any float type and strides. Leading axes that do not collapse into
            one are copied.
        mask: (..., N) bool, the valid rows.
        epsilon: Temperature.
        iterations: At least 1.
        column_sums: Turns the logarithms (..., M) of local column sums into those of the global
            ones. None: each problem stands alone.

    Returns:
        (..., N, M) float32.
    """
    rows, columns = scores.shape[-2:]
    out = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
    if columns == 0:
        return out
    if out.numel() == 0 and column_sums is None:
        return out
    problems = scores.shape[:-2].numel()
    x = scores.reshape(problems, rows, columns)
    used = mask.reshape(problems, rows)
    padded_size = triton.next_power_of_2(rows) * triton.next_power_of_2(columns)
    with torch.cuda.device_of(scores):  # triton launches on the current device
        if column_sums is None and padded_size <= WHOLE:
            _assign_whole(x, used, out, epsilon=epsilon, iterations=iterations)
        else:
            _assign_by_passes(
                x, used, out, epsilon=epsilon, iterations=iterations, column_sums=column_sums
            )
    return out


def _assign_whole(x: Tensor, mask: Tensor, out: Tensor, *, epsilon: float, iterations: int) -> None:
    """Write the assignments of problems that fit into one program each to ``out``."""
    problems, rows, columns = x.shape
    block_rows = triton.next_power_of_2(rows)
    block_columns = triton.next_power_of_2(columns)
    size = block_rows * block_columns
    # A thread has 64 entries, hence 128 registers with the largest size and up to 250 with fewer
    # threads. So a multiprocessor holds half as many programs as the entries alone would allow.
    programs_each = min(32, max(1, WHOLE // 2 // size))
    programs = min(problems, _multiprocessors(x.device) * programs_each)
    whole_kernel[(programs,)](
        x,
        mask,
        out,
        problems,
        rows,
        1 / epsilon,
        x.stride(0),
        *mask.stride(),
        M=columns,
        ROW_STRIDE=x.stride(1),
        COLUMN_STRIDE=x.stride(2),
        ITERATIONS=iterations,
        ROWS=block_rows,
        COLUMNS=block_columns,
        EACH=triton.cdiv(problems, programs),
        num_warps=min(16, max(1, size // 2048)),
    )


def _multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a device.

    Interpreted, the number is small, so that a program takes several problems in small tests too.
    """
    if not is_gpu(device):
        return 1
    return processors(device)


def _assign_by_passes(
    x: Tensor,
    mask: Tensor,
    out: Tensor,
    *,
    epsilon: float,
    iterations: int,
    column_sums: Callable[[Tensor], Tensor] | None,
) -> None:
    """Write the assignments of large problems, or those spread over ranks, to ``out``."""
    problems, rows, columns = x.shape
    scalings = torch.zeros(mask.shape, device=x.device).masked_fill(~mask, -torch.inf)  # problems N
    for step in range(iterations):
        sums = _sum_columns(x, scalings, epsilon)  # problems M
        sums = sums.view(*out.shape[:-2], columns)  # ... M
        if column_sums is not None:
            sums = column_sums(sums)  # ... M
        total = sums.contiguous()  # ... M
        if not rows:
            continue  # this rank has nothing to write, but takes part in the collectives
        last = step == iterations - 1
        # Four rows share a read of the sums. The last time scores are read twice, and a single row
        # stays in the cache.
        height = 1 if last else 4
        rows_kernel[(problems * triton.cdiv(rows, height),)](
            x,
            mask,
            total,
            out if last else scalings,
            rows,
            1 / epsilon,
            *x.stride(),
            *mask.stride(),
            M=columns,
            LAST=last,
            ROWS=height,
            COLUMNS=min(4096 // height, triton.next_power_of_2(columns)),
            num_warps=8,
        )


def _sum_columns(x: Tensor, scalings: Tensor, epsilon: float) -> Tensor:
    """Logarithms (problems, M) of the sums over the rows of x (problems, N, M), scaled."""
    problems, rows, columns = x.shape
    span = min(SPAN, max(8, triton.next_power_of_2(rows)))
    spans = max(1, triton.cdiv(rows, span))
    tiles = triton.cdiv(columns, COLUMN_TILE)
    narrow_tiles = triton.cdiv(columns, NARROW_TILE)
    # peaks, and sums over exp(peak)
    partial = torch.empty(2, problems, spans, columns, device=x.device)
    sums = torch.empty(problems, columns, device=x.device)  # problems M
    columns_kernel[(problems * spans * tiles,)](
        x,
        scalings,
        *partial,
        rows,
        columns,
        spans,
        tiles,
        1 / epsilon,
        *x.stride(),
        SPAN=span,
        ROWS=8,
        COLUMNS=COLUMN_TILE,
        num_warps=4,
    )
    add_spans_kernel[(problems * narrow_tiles,)](
        *partial,
        sums,
        columns,
        spans,
        narrow_tiles,
        SPANS=triton.next_power_of_2(spans),
        COLUMNS=NARROW_TILE,
        num_warps=4,
    )
    return sums
