"""Products of rows sorted by group, each with its group's matrix; where the groups end is known on
the device alone.

The library's ``torch.nn.functional.grouped_mm`` (CUTLASS, warp-specialised, copies by TMA) is used
where it fits: bf16, compute capability 9, rows of whole 16 bytes. Elsewhere it does not. By its
source (release 2.11) other types and older cards take a loop in C++ that copies the ends to the
host and waits; on capability 10 the weight gradient of an empty group is not written (pytorch issue
172439); it takes no float64 and no bias. The kernels here serve these cases.

Sums are in float32 and in a fixed order. Rows behind the last group are neither read nor written.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor


def rows_times(x: Tensor, ends: Tensor, matrices: Tensor) -> Tensor:
    """y[n] = x[n] @ matrices[e] for the rows n of group e: (N, K), (E,) int32, (E, K, M) -> (N, M).

    ``ends``: where each group ends, not decreasing, the last at most N. ``matrices`` may have any
        strides.
    """
    (rows, inner), (groups, _, columns) = x.shape, matrices.shape
    if _library_fits(x, inner, columns):
        return F.grouped_mm(x, matrices, offs=ends)
    y = x.new_empty(rows, columns)  # N M
    block = _block(x)
    # a group has at most one tile that is not full
    tiles = rows // block["ROWS"] + groups
    _rows_times[(triton.cdiv(columns, block["COLUMNS"]), tiles)](
        x,
        matrices,
        ends,
        y,
        inner,
        columns,
        *x.stride(),
        *matrices.stride(),
        GROUPS=groups,
        GROUPS_PADDED=triton.next_power_of_2(groups),
        **block,
    )
    return y


def outer_sums(x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
    """The sum of outer products x[n] y[n] over the rows of each group: (N, K), (N, M), (E,) int32
    -> (E, K, M).

    Zeros for an empty group.
    """
    left, right, groups = x.shape[1], y.shape[1], len(ends)
    if _library_fits(x, left, right):
        return F.grouped_mm(x.mT, y, offs=ends)
    sums = x.new_empty(groups, left, right)  # E K M
    block = _block(x)
    grid = triton.cdiv(right, block["COLUMNS"]), triton.cdiv(left, block["ROWS"]), groups
    _outer_sums[grid](x, y, ends, sums, left, right, *x.stride(), *y.stride(), **block)
    return sums


def _library_fits(x: Tensor, *widths: int) -> bool:
    """Whether the library multiplies these without a wait, also for empty groups. ``widths``: of
    all three tensors."""
    return (
        x.is_cuda
        and x.dtype == torch.bfloat16
        and torch.cuda.get_device_capability(x.device)[0] == 9
        and all(width % 8 == 0 for width in widths)
    )


def _block(x: Tensor) -> dict[str, int | str]:
    """Shape of a tile. float32 has no matrix unit of its own precision; TF32 only where torch may
    use it."""
    if x.dtype == torch.float32:
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
        return dict(ROWS=64, COLUMNS=64, INNER=32, PRECISION=precision, num_warps=4, num_stages=3)
    if x.is_cuda:
        return dict(ROWS=128, COLUMNS=128, INNER=64, PRECISION="ieee", num_warps=8, num_stages=3)
    return dict(
        ROWS=32, COLUMNS=32, INNER=16, PRECISION="ieee"
    )  # interpreted: several tiles in small tests too


@triton.jit
def _rows_times(
    x,
    matrices,
    ends,
    y,
    inner,
    columns,
    x_row,
    x_column,
    m_group,
    m_row,
    m_column,
    GROUPS: tl.constexpr,
    GROUPS_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of y. The tiles of all groups are numbered through; each program finds its group."""
    tile = tl.program_id(1)
    g = tl.arange(0, GROUPS_PADDED)
    end = tl.load(ends + g, g < GROUPS, other=0)
    start = tl.load(ends + g - 1, (g > 0) & (g < GROUPS), other=0)
    tiles = tl.where(g < GROUPS, tl.cdiv(end - start, ROWS), 0)
    last = tl.cumsum(tiles, 0)  # one behind the group's tiles
    mine = (tile >= last - tiles) & (
        tile < last
    )  # one group, or none: then nothing is read or written
    group = tl.sum(tl.where(mine, g, 0), 0).to(tl.int64)
    row = tl.sum(tl.where(mine, start + (tile - last + tiles) * ROWS, 0), 0) + tl.arange(0, ROWS)
    inside = row < tl.sum(tl.where(mine, end, 0), 0)
    row = row.to(tl.int64)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, inner, INNER):
        k = first + tl.arange(0, INNER)
        a = tl.load(
            x + row[:, None] * x_row + k[None] * x_column,
            inside[:, None] & (k < inner)[None],
            other=0.0,
        )
        at = matrices + group * m_group + k[:, None] * m_row + column[None] * m_column
        b = tl.load(at, (k < inner)[:, None] & (column < columns)[None], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    at = y + row[:, None] * columns + column[None]
    tl.store(at, total.to(y.dtype.element_ty), inside[:, None] & (column < columns)[None])


@triton.jit
def _outer_sums(
    x,
    y,
    ends,
    sums,
    left,
    right,
    x_row,
    x_column,
    y_row,
    y_column,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of one group's sum: down all rows of the group."""
    group = tl.program_id(2)
    start = tl.load(ends + group - 1, group > 0, other=0)
    end = tl.load(ends + group)
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(start, end, INNER):
        row = first + tl.arange(0, INNER)
        inside = row < end
        row = row.to(tl.int64)
        a = tl.load(
            x + i[:, None] * x_column + row[None] * x_row,
            (i < left)[:, None] & inside[None],
            other=0.0,
        )
        b = tl.load(
            y + row[:, None] * y_row + j[None] * y_column,
            inside[:, None] & (j < right)[None],
            other=0.0,
        )
        total = tl.dot(a, b, total, input_precision=PRECISION)
    at = sums + (group.to(tl.int64) * left + i[:, None]) * right + j[None]
    tl.store(at, total.to(sums.dtype.element_ty), (i < left)[:, None] & (j < right)[None])
