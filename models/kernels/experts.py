"""The experts of a top-1 MoE layer, all at once; the reference is models.moe.experts._reference.

Rows are tokens in the order of their experts. The row of each token is computed on the device and
the sizes of the experts never leave it, so the host does not wait. There are five steps, in
brackets the bytes for N tokens of width D, hidden width H:

    scatter   rows[row[n]] = x[n]                                     (2 N D)
    product   h = rows W1[e]                                          (grouped_product.py)
    activate  a = GELU(h + b1[e])                                     (2 N H)
    product   z = a W2[e]
    gather    y[n] = weight[n] (z[row[n]] + b2[e]), 0 without a row   (2 N D)

In the backward pass scatter and gather change places. There a is computed again beside the gradient
of h, which replaces that of a: (4 N H). Kept from the forward pass are x, h and z. The sums over
rows for the gradients of the biases are taken in spans of fixed number and added in a second step:
no atomics, so the same input gives the same bits.

The experts' matrices are separate parameters; the products need them in one tensor. With 8 experts
of 1408 x 5632 in bf16 a copy of one layer moves 0.5 GB, 0.12 ms at 4.2 TB/s, beside 9.6 ms for the
products of 65,536 tokens (6.2 TFLOP at 650 TFLOP/s). The backward pass copies again, rather than
keep 254 MB a layer.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.kernels.grouped_product import outer_sums, rows_times

SPANS = 16  # parts of an expert's rows that are summed separately; fewer if there are few rows
SPAN = 256  # rows that make a part worth it
STEP = 1024  # channels of a token that a program moves at once: 16 bytes a thread in bf16


class TwoLayers(Protocol):
    """An expert: linear, GELU, linear."""

    fc1: nn.Linear
    fc2: nn.Linear


class Stacked(NamedTuple):
    """The parameters of all experts."""

    w1: Tensor  # E H D
    b1: Tensor  # E H
    w2: Tensor  # E D H
    b2: Tensor  # E D


class Weights(NamedTuple):
    """What a weighted scatter or gather needs beside its rows."""

    weight: Tensor  # N
    bias: Tensor  # E D
    ends: Tensor  # E int32


def run_experts(
    x: Tensor, experts: Sequence[TwoLayers], *, row: Tensor, ends: Tensor, weight: Tensor
) -> Tensor:
    """Compute what ``models.moe.experts.run_experts`` does.

    Args:
        x: Tokens (N, D), N at least 1, of the experts' type: bf16, fp16 or fp32.
        experts: E networks.
        row: (N,) as in ``models.moe.experts.ExpertOrder``.
        ends: (E,) likewise.
        weight: (N,).

    Returns:
        (N, D), differentiable once.
    """
    parameters = []
    for expert in experts:
        for layer in (expert.fc1, expert.fc2):
            parameters += [layer.weight, layer.bias]
    with torch.cuda.device_of(x):  # triton launches on the current device
        return _Experts.apply(x, row.int(), ends.int(), weight, *parameters)


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, row, ends, weight, *parameters):
        """See ``run_experts``; the parameters of one expert after another, as in ``_stack``."""
        w1, b1, w2, b2 = _stack(parameters)
        h = rows_times(_scatter(x, row), ends, w1.mT)  # N H
        z = rows_times(_activate(h, b1, ends), ends, w2.mT)  # N D
        ctx.save_for_backward(x, row, ends, weight, h, z, *parameters)
        return _gather(z, row, Weights(weight, b2, ends))  # N D

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Gradients of x, weight and all parameters from that of the result (N, D)."""
        x, row, ends, weight, h, z, *parameters = ctx.saved_tensors
        w1, b1, w2, b2 = _stack(parameters)
        d_z, d_weight = _scatter_weighted(gradient, row, z, Weights(weight, b2, ends))  # N D, N
        d_b2 = _sum_rows(d_z, ends)  # E D
        d_h = rows_times(d_z, ends, w2)  # N H, of a until the next line
        a, d_b1 = _pull_back(d_h, h, b1, ends)  # N H, E H
        d_w2 = outer_sums(d_z, a, ends)  # E D H
        d_w1 = outer_sums(d_h, _scatter(x, row), ends)  # E H D
        d_x = _gather(rows_times(d_h, ends, w1), row)  # N D
        d_parameters = _unstack(Stacked(d_w1, d_b1.to(b1.dtype), d_w2, d_b2.to(b2.dtype)))
        return d_x, None, None, d_weight.to(weight.dtype), *d_parameters


def _stack(parameters: Sequence[Tensor]) -> Stacked:
    """Weight and bias of the first and the second layer of each expert -> those of all experts."""
    return Stacked(*(torch.stack(list(parameters[i::4])) for i in range(4)))


def _unstack(stacked: Stacked) -> list[Tensor]:
    """The inverse of ``_stack``."""
    parameters = []
    for expert in range(len(stacked.w1)):
        parameters += [tensor[expert] for tensor in stacked]
    return parameters


def _scatter(x: Tensor, row: Tensor) -> Tensor:
    """rows[row[n]] = x[n], (N, D)."""
    rows = torch.empty(x.shape, dtype=x.dtype, device=x.device)  # N D
    _scatter_rows[(len(x),)](
        x,
        row,
        None,
        None,
        None,
        None,
        rows,
        None,
        *x.stride(),
        0,
        WEIGHTED=False,
        **_token_shape(x),
    )
    return rows


def _scatter_weighted(x: Tensor, row: Tensor, z: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """rows[row[n]] = weight[n] x[n] (N, D), and the products x[n] . (z[row[n]] + bias[e]) (N,)."""
    rows = torch.empty(x.shape, dtype=x.dtype, device=x.device)  # N D
    inner = torch.empty(len(x), dtype=torch.float32, device=x.device)  # N
    _scatter_rows[(len(x),)](
        x,
        row,
        weights.weight,
        z,
        weights.bias,
        weights.ends,
        rows,
        inner,
        *x.stride(),
        weights.weight.stride(0),
        WEIGHTED=True,
        **_token_shape(x, groups=len(weights.ends)),
    )
    return rows, inner


def _gather(rows: Tensor, row: Tensor, weights: Weights | None = None) -> Tensor:
    """y[n] = rows[row[n]]; weighted: weight[n] (rows[row[n]] + bias[e]).

    Zero where a token has no row.
    """
    y = torch.empty_like(rows)  # N D
    if weights is None:
        _gather_rows[(len(rows),)](
            rows, row, None, None, None, y, 0, WEIGHTED=False, **_token_shape(rows)
        )
    else:
        _gather_rows[(len(rows),)](
            rows,
            row,
            weights.weight,
            weights.bias,
            weights.ends,
            y,
            weights.weight.stride(0),
            WEIGHTED=True,
            **_token_shape(rows, groups=len(weights.ends)),
        )
    return y


def _token_shape(x: Tensor, groups: int = 1) -> dict[str, int]:
    """Launch arguments of a program that takes one token."""
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
    """a = GELU(h + bias[e]) (N, H), and the gradient of the biases (E, H).

    ``gradient``, of a, becomes that of h.
    """
    a = torch.empty_like(h)  # N H
    grid, shape = _spans(gradient, ends)
    partial = _partial_sums(gradient, ends, spans=shape["SPANS"])  # E spans H
    _sum_spans[grid](gradient, h, bias, a, ends, partial, ACTIVATION=True, **shape)
    return a, partial.sum(1)


def _sum_rows(x: Tensor, ends: Tensor) -> Tensor:
    """Sums over the rows of each expert, (N, M) -> (E, M) float32."""
    grid, shape = _spans(x, ends)
    partial = _partial_sums(x, ends, spans=shape["SPANS"])  # E spans M
    _sum_spans[grid](x, None, None, None, ends, partial, ACTIVATION=False, **shape)
    return partial.sum(1)


def _partial_sums(x: Tensor, ends: Tensor, *, spans: int) -> Tensor:
    """Memory for the sums of the parts of all experts, (E, spans, M) float32."""
    return torch.empty(len(ends), spans, x.shape[1], dtype=torch.float32, device=x.device)


def _spans(x: Tensor, ends: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid of columns and parts of the experts' rows, and launch arguments.

    An expert may have all rows, or none.
    """
    spans = min(SPANS, triton.cdiv(len(x), SPAN))
    columns = min(128, triton.next_power_of_2(x.shape[1]))
    grid = (triton.cdiv(x.shape[1], columns), len(ends) * spans)
    return grid, dict(WIDTH=x.shape[1], SPANS=spans, ROWS=16, COLUMNS=columns, num_warps=4)


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
