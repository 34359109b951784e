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
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.kernels.experts_kernels import (
    activate_kernel,
    gather_kernel,
    scatter_kernel,
    sum_spans_kernel,
)
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
    scatter_kernel[(len(x),)](
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
    scatter_kernel[(len(x),)](
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
        gather_kernel[(len(rows),)](
            rows, row, None, None, None, y, 0, WEIGHTED=False, **_token_shape(rows)
        )
    else:
        gather_kernel[(len(rows),)](
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
    return {
        "WIDTH": x.shape[1],
        "GROUPS": groups,
        "GROUPS_PADDED": triton.next_power_of_2(groups),
        "COLUMNS": min(STEP, triton.next_power_of_2(x.shape[1])),
        "num_warps": 4,
    }


def _activate(h: Tensor, bias: Tensor, ends: Tensor) -> Tensor:
    """GELU(h + bias[e]), (N, H)."""
    a = torch.empty_like(h)  # N H
    grid, shape = _spans(h, ends)
    activate_kernel[grid](h, bias, ends, a, **shape)
    return a


def _pull_back(gradient: Tensor, h: Tensor, bias: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """a = GELU(h + bias[e]) (N, H), and the gradient of the biases (E, H).

    ``gradient``, of a, becomes that of h.
    """
    a = torch.empty_like(h)  # N H
    grid, shape = _spans(gradient, ends)
    partial = _partial_sums(gradient, ends, spans=shape["SPANS"])  # E spans H
    sum_spans_kernel[grid](gradient, h, bias, a, ends, partial, ACTIVATION=True, **shape)
    return a, partial.sum(1)


def _sum_rows(x: Tensor, ends: Tensor) -> Tensor:
    """Sums over the rows of each expert, (N, M) -> (E, M) float32."""
    grid, shape = _spans(x, ends)
    partial = _partial_sums(x, ends, spans=shape["SPANS"])  # E spans M
    sum_spans_kernel[grid](x, None, None, None, ends, partial, ACTIVATION=False, **shape)
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
    shape = {
        "WIDTH": x.shape[1],
        "SPANS": spans,
        "ROWS": 16,
        "COLUMNS": columns,
        "num_warps": 4,
    }
    return grid, shape
