"""Products of rows sorted by group, each with its group's matrix.

Only the device knows where the groups end. The library's ``torch.nn.functional.grouped_mm``
(CUTLASS, warp-specialised, copies by TMA) is used where it fits: bf16, compute capability 9, rows
of whole 16 bytes. Elsewhere it does not fit. By its source (release 2.11) other types and older
cards take a loop in C++ that copies the ends to the host and waits; on capability 10 the weight
gradient of an empty group is not written (pytorch issue 172439); it takes no float64 and no bias.
The kernels here serve these cases.

Sums are in float32 and in a fixed order. Rows behind the last group are neither read nor written.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.gpu import capability, is_gpu


@dataclass(frozen=True)
class Tile:
    """The shape of a program's part of a product."""

    rows: int
    columns: int
    inner: int  # summed at once
    precision: str
    options: dict[str, int]  # of the launch

    def arguments(self) -> dict[str, int | str]:
        """Keyword arguments of a launch."""
        return {
            "ROWS": self.rows,
            "COLUMNS": self.columns,
            "INNER": self.inner,
            "PRECISION": self.precision,
            **self.options,
        }


def rows_times(x: Tensor, ends: Tensor, matrices: Tensor) -> Tensor:
    """Compute y[n] = x[n] @ matrices[e] for the rows n of each group e.

    Args:
        x: (N, K).
        ends: (E,) int32, where each group ends: not decreasing, the last at most N.
        matrices: (E, K, M) of any strides.

    Returns:
        (N, M).
    """
    rows, inner = x.shape
    groups, _, columns = matrices.shape
    if _library_fits(x, inner, columns):
        return F.grouped_mm(x, matrices, offs=ends)
    y = x.new_empty(rows, columns)  # N M
    tile = _tile(x)
    # a group has at most one tile that is not full
    tiles = rows // tile.rows + groups
    _rows_times[(triton.cdiv(columns, tile.columns), tiles)](
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
        **tile.arguments(),
    )
    return y


def outer_sums(x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
    """Sum the outer products x[n] y[n] over the rows of each group.

    Args:
        x: (N, K).
        y: (N, M).
        ends: (E,) int32, as of ``rows_times``.

    Returns:
        (E, K, M), zeros for an empty group.
    """
    left = x.shape[1]
    right = y.shape[1]
    groups = len(ends)
    if _library_fits(x, left, right):
        return F.grouped_mm(x.mT, y, offs=ends)
    sums = x.new_empty(groups, left, right)  # E K M
    tile = _tile(x)
    grid = (triton.cdiv(right, tile.columns), triton.cdiv(left, tile.rows), groups)
    _outer_sums[grid](x, y, ends, sums, left, right, *x.stride(), *y.stride(), **tile.arguments())
    return sums


def _library_fits(x: Tensor, *widths: int) -> bool:
    """Whether the library multiplies without a wait, also for empty groups.

    ``widths`` are those of all three tensors.
    """
    if not is_gpu(x.device) or x.dtype != torch.bfloat16:
        return False
    if capability(x.device) != 9:
        return False
    return all(width % 8 == 0 for width in widths)


def _tile(x: Tensor) -> Tile:
    """The tile for the type and device of x."""
    if x.dtype == torch.float32:
        # float32 has no matrix unit of its own precision; TF32 only where torch may use it
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
        options = {"num_warps": 4, "num_stages": 3}
        return Tile(64, 64, inner=32, precision=precision, options=options)
    if is_gpu(x.device):
        options = {"num_warps": 8, "num_stages": 3}
        return Tile(128, 128, inner=64, precision="ieee", options=options)
    # interpreted: several tiles in small tests too
    return Tile(32, 32, inner=16, precision="ieee", options={})


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
    """Compute one tile of y.

    The tiles of all groups have one numbering, and each program finds its group.
    """
    tile = tl.program_id(1)
    g = tl.arange(0, GROUPS_PADDED)
    end = tl.load(ends + g, g < GROUPS, other=0)
    start = tl.load(ends + g - 1, (g > 0) & (g < GROUPS), other=0)
    tiles = tl.where(g < GROUPS, tl.cdiv(end - start, ROWS), 0)
    last = tl.cumsum(tiles, 0)  # one behind the group's tiles
    # one group, or none: then nothing is read or written
    mine = (tile >= last - tiles) & (tile < last)
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
    """Compute one tile of one group's sum over all rows of the group."""
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
