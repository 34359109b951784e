"""Experts of a top-1 mixture, all at once; the reference is models.experts._reference.

Rows are tokens in the order of their experts. Where a token's row lies is computed on the device
and the sizes of the experts never leave it, so nothing waits. Five steps, in brackets the bytes for
N tokens of width D, hidden H:

    scatter   rows[row[n]] = x[n]                                     (2 N D)
    product   h = rows W1[e]                                          (grouped_product.py)
    activate  a = GELU(h + b1[e])                                     (2 N H)
    product   z = a W2[e]
    gather    y[n] = weight[n] (z[row[n]] + b2[e]), 0 without a row   (2 N D)

Backward, scatter and gather change places; a is computed again beside the gradient of h, which
replaces that of a: (4 N H). Kept from the forward pass are x, h and z. The sums over rows for the
gradients of the biases are taken in spans of fixed number and added in a second step: no atomics,
so the same input gives the same bits.

The experts' matrices are separate parameters, the products want them in one tensor. With 8 experts
of 1408 x 5632 in bf16 a copy of one layer moves 0.5 GB, 0.12 ms at 4.2 TB/s, beside 9.6 ms for the
products of 65,536 tokens (6.2 TFLOP at 650 TFLOP/s). Backward copies again, rather than keep 254 MB
a layer.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.kernels.grouped_product import outer_sums, rows_times

SPANS = 16  # parts of an expert's rows that are summed apart; fewer if there are few rows
SPAN = 256  # rows that make a part worth it
STEP = 1024  # channels of a token that a program moves at once: 16 bytes a thread in bf16


def run_experts(
    x: Tensor, experts: Sequence[nn.Module], *, row: Tensor, ends: Tensor, weight: Tensor
) -> Tensor:
    """See models.experts.run_experts. x and the experts are bf16, fp16 or fp32, of one type; N is
    at least 1."""
    parameters = [
        p
        for expert in experts
        for layer in (expert.fc1, expert.fc2)
        for p in (layer.weight, layer.bias)
    ]
    with torch.cuda.device_of(x):  # triton launches on the current device
        return _Experts.apply(x, row.int(), ends.int(), weight, *parameters)


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, row, ends, weight, *parameters):
        """See ``run_experts``; the parameters of one expert after another, as in ``_stack``."""
        w1, b1, w2, b2 = _stack(parameters)  # E H D, E H, E D H, E D
        rows, _ = _scatter(x, row)  # N D
        h = rows_times(rows, ends, w1.mT)  # N H
        z = rows_times(_activate(h, b1, ends), ends, w2.mT)  # N D
        ctx.save_for_backward(x, row, ends, weight, h, z, *parameters)
        return _gather(z, row, weight, b2, ends)  # N D

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Gradients of x, weight and all parameters from that of the result (N, D)."""
        x, row, ends, weight, h, z, *parameters = ctx.saved_tensors
        w1, b1, w2, b2 = _stack(parameters)
        d_z, d_weight = _scatter(gradient, row, weight, z, b2, ends)  # N D, N
        d_b2 = _sum_rows(d_z, ends)  # E D
        d_h = rows_times(d_z, ends, w2)  # N H, of a until the next line
        a, d_b1 = _pull_back(d_h, h, b1, ends)  # N H, E H
        d_w2 = outer_sums(d_z, a, ends)  # E D H
        d_w1 = outer_sums(d_h, _scatter(x, row)[0], ends)  # E H D
        d_x = _gather(rows_times(d_h, ends, w1), row)  # N D
        pieces = zip(*(t.unbind(0) for t in (d_w1, d_b1.to(b1.dtype), d_w2, d_b2.to(b2.dtype))))
        return d_x, None, None, d_weight.to(weight.dtype), *(t for piece in pieces for t in piece)


def _stack(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Weight and bias of the first and the second layer of each expert -> the same four of all
    experts."""
    return [torch.stack(parameters[i::4]) for i in range(4)]


def _scatter(
    x: Tensor,
    row: Tensor,
    weight: Tensor | None = None,
    z: Tensor | None = None,
    bias: Tensor | None = None,
    ends: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """rows[row[n]] = x[n]; weighted: weight[n] x[n], and the products x[n] . (z[row[n]] + bias[e])
    (N,) beside it."""
    rows = torch.empty(x.shape, dtype=x.dtype, device=x.device)  # N D
    inner = None if z is None else torch.empty(len(x), dtype=torch.float32, device=x.device)  # N
    _scatter_rows[(len(x),)](
        x,
        row,
        weight,
        z,
        bias,
        ends,
        rows,
        inner,
        *x.stride(),
        0 if weight is None else weight.stride(0),
        WEIGHTED=weight is not None,
        **_wide(x, ends),
    )
    return rows, inner


def _gather(
    rows: Tensor,
    row: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    ends: Tensor | None = None,
) -> Tensor:
    """y[n] = rows[row[n]]; weighted: weight[n] (rows[row[n]] + bias[e]). Zero where a token has no
    row."""
    y = torch.empty_like(rows)  # N D
    _gather_rows[(len(rows),)](
        rows,
        row,
        weight,
        bias,
        ends,
        y,
        0 if weight is None else weight.stride(0),
        WEIGHTED=weight is not None,
        **_wide(rows, ends),
    )
    return y


def _wide(x: Tensor, ends: Tensor | None) -> dict[str, int]:
    """A program takes one token."""
    groups = 1 if ends is None else len(ends)
    return dict(
        WIDTH=x.shape[1],
        GROUPS=groups,
        GROUPS_PADDED=triton.next_power_of_2(groups),
        COLUMNS=min(STEP, triton.next_power_of_2(x.shape[1])),
        num_warps=4,
    )


def _activate(h: Tensor, bias: Tensor, ends: Tensor) -> Tensor:
    """GELU(h + bias[e]), (N, H)."""
    a = torch.empty_like(h)  # N H
    grid, shape = _spans(h, ends)
    _activate_rows[grid](h, bias, ends, a, **shape)
    return a


def _pull_back(gradient: Tensor, h: Tensor, bias: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """a = GELU(h + bias[e]) (N, H) and the gradient of the biases (E, H); ``gradient``, of a, becomes that of h."""
    a = torch.empty_like(h)  # N H
    return a, _sum_rows(gradient, ends, h, bias, a)


def _sum_rows(
    x: Tensor,
    ends: Tensor,
    h: Tensor | None = None,
    bias: Tensor | None = None,
    a: Tensor | None = None,
) -> Tensor:
    """Sums over the rows of each expert, (N, M) -> (E, M) float32; with ``h`` see ``_pull_back``."""
    grid, shape = _spans(x, ends)
    partial = torch.empty(
        len(ends), shape["SPANS"], x.shape[1], dtype=torch.float32, device=x.device
    )  # E spans M
    _sum_spans[grid](x, h, bias, a, ends, partial, ACTIVATION=h is not None, **shape)
    return partial.sum(1)


def _spans(x: Tensor, ends: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid of columns and parts of the experts' rows. An expert may have all rows, or none."""
    spans = min(SPANS, triton.cdiv(len(x), SPAN))
    columns = min(128, triton.next_power_of_2(x.shape[1]))
    return (triton.cdiv(x.shape[1], columns), len(ends) * spans), dict(
        WIDTH=x.shape[1], SPANS=spans, ROWS=16, COLUMNS=columns, num_warps=4
    )


@triton.jit
def _scatter_rows(
    x,
    rows_of,
    weight,
    z,
    bias,
    ends,
    rows,
    inner,
    x_row,
    x_column,
    weight_step,
    WEIGHTED: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUPS_PADDED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    row = tl.load(rows_of + token).to(tl.int64)
    there = row >= 0
    if WEIGHTED:
        factor = tl.load(weight + token * weight_step).to(tl.float32)
        bias += _group(row, ends, GROUPS, GROUPS_PADDED) * WIDTH
        products = tl.zeros((COLUMNS,), tl.float32)
    for start in tl.static_range(0, WIDTH, COLUMNS):
        k = start + tl.arange(0, COLUMNS)
        inside = (k < WIDTH) & there
        value = tl.load(x + token * x_row + k * x_column, inside, other=0.0)
        if WEIGHTED:
            value = value.to(tl.float32)
            other = tl.load(z + row * WIDTH + k, inside, other=0.0).to(tl.float32)
            other += tl.load(bias + k, inside, other=0.0).to(tl.float32)
            products += value * other
            value *= factor
        tl.store(rows + row * WIDTH + k, value.to(rows.dtype.element_ty), inside)
    if WEIGHTED:
        tl.store(inner + token, tl.sum(products, 0))


@triton.jit
def _gather_rows(
    rows,
    rows_of,
    weight,
    bias,
    ends,
    y,
    weight_step,
    WEIGHTED: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUPS_PADDED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    row = tl.load(rows_of + token).to(tl.int64)
    there = row >= 0
    if WEIGHTED:
        factor = tl.load(weight + token * weight_step).to(tl.float32)
        bias += _group(row, ends, GROUPS, GROUPS_PADDED) * WIDTH
    for start in tl.static_range(0, WIDTH, COLUMNS):
        k = start + tl.arange(0, COLUMNS)
        inside = (k < WIDTH) & there
        value = tl.load(rows + row * WIDTH + k, inside, other=0.0)
        if WEIGHTED:
            value = (
                value.to(tl.float32) + tl.load(bias + k, inside, other=0.0).to(tl.float32)
            ) * factor
            value = tl.where(there, value, 0.0)
        tl.store(y + token * WIDTH + k, value.to(y.dtype.element_ty), k < WIDTH)


@triton.jit
def _group(row, ends, GROUPS: tl.constexpr, GROUPS_PADDED: tl.constexpr):
    """The group that a row belongs to; row -1 gives the first, whose numbers are then not read."""
    g = tl.arange(0, GROUPS_PADDED)
    end = tl.load(ends + g, g < GROUPS, other=2**31 - 1)
    return tl.sum((end <= row).to(tl.int64), 0)


@triton.jit
def _span(ends, SPANS: tl.constexpr):
    """The expert of a program, and the first and the end of its rows."""
    group, part = tl.program_id(1) // SPANS, tl.program_id(1) % SPANS
    start = tl.load(ends + group - 1, group > 0, other=0)
    end = tl.load(ends + group)
    each = tl.cdiv(end - start, SPANS)
    first = start + part * each
    return group, first, tl.minimum(first + each, end)


@triton.jit
def _normal(z):
    """Probability that a standard normal number is below z."""
    return 0.5 * (1 + tl.erf(z * 0.7071067811865476))


@triton.jit
def _activate_rows(
    h,
    bias,
    ends,
    a,
    WIDTH: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    group, first, end = _span(ends, SPANS)
    k = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    offset = tl.load(bias + group * WIDTH + k, k < WIDTH, other=0.0).to(tl.float32)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & (k < WIDTH)[None]
        at = row.to(tl.int64)[:, None] * WIDTH + k[None]
        z = tl.load(h + at, inside, other=0.0).to(tl.float32) + offset[None]
        tl.store(a + at, (z * _normal(z)).to(a.dtype.element_ty), inside)


@triton.jit
def _sum_spans(
    x,
    h,
    bias,
    a,
    ends,
    partial,
    ACTIVATION: tl.constexpr,
    WIDTH: tl.constexpr,
    SPANS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    group, first, end = _span(ends, SPANS)
    k = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    if ACTIVATION:
        offset = tl.load(bias + group * WIDTH + k, k < WIDTH, other=0.0).to(tl.float32)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < end)[:, None] & (k < WIDTH)[None]
        at = row.to(tl.int64)[:, None] * WIDTH + k[None]
        value = tl.load(x + at, inside, other=0.0).to(tl.float32)
        if ACTIVATION:
            z = tl.load(h + at, inside, other=0.0).to(tl.float32) + offset[None]
            below = _normal(z)
            tl.store(a + at, (z * below).to(a.dtype.element_ty), inside)
            value *= below + z * tl.exp(-0.5 * z * z) * 0.3989422804014327
            tl.store(x + at, value.to(x.dtype.element_ty), inside)
        total += value
    tl.store(partial + tl.program_id(1) * WIDTH + k, tl.sum(total, 0), k < WIDTH)
