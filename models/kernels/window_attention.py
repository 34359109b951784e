"""Scaled cosine attention in shifted windows (Swin V2), fused.

The reference is models.backbone.swin_v2.WindowAttention.attend; the kernels are in
window_attention_kernels.py.

A program serves one head and one window position at a time, in several images. It reads q, k and v
where they lie in the grid and writes the result to its place: roll, partition, padding, mask and
bias are index arithmetic.

The cost is that of moving data: at 64 tokens of 32 channels a window and head takes 2.6e5
multiply-adds for 16 KB in bf16, 32 FLOP a byte, where an H100 has the time for 200. So nothing is
written that can be computed again. The backward pass recomputes the softmax from q, k and the
logarithm of each row's total, 4 bytes a token and head, which save it a tenth of its instructions.
It reads qkv and the gradient once and writes the gradient of qkv once.

The gradient of the bias is a sum over windows. A program holds it in registers while it passes over
windows of its head, and writes it once, 16 KB. There are as many programs as fit at once: with 11
heads on 132 multiprocessors 24 a head, so 4 MB beside 1.3 GB of a batch of 16 images of 128 x 128
tokens; one a window position would be 46 MB. ``table_gradient_kernel`` adds programs and pairs in a
fixed order. Nothing is atomic: the same input gives the same bits.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernels.gpu import is_gpu, processors
from models.kernels.window_attention_kernels import (
    backward_kernel,
    forward_kernel,
    table_gradient_kernel,
)

# Programs that a multiprocessor holds at once, by their 255 registers. More would only add partial
# sums.
BACKWARD_PROGRAMS = 2
# A unit of work is one window position in up to so many images, which share places, mask and bias:
# about 700 instructions, where the rest of a window takes 1000. Larger units leave more programs
# idle at the end.
IMAGES = 8
ENTRIES = 16  # rows of the bias table that a program of table_gradient_kernel serves


@dataclass(frozen=True)
class Cut:
    """How the grid is cut, as in models.backbone.windows.Windows."""

    side: tuple[int, int]
    shift: tuple[int, int]
    count: tuple[int, int]


def window_attention(
    qkv: Tensor,
    scale: Tensor,
    table: Tensor,
    *,
    side: tuple[int, int],
    shift: tuple[int, int],
    count: tuple[int, int],
    min_norm: float,
) -> Tensor:
    """Compute softmax(scale cos(q, k) + bias) v inside windows.

    Differentiable once in the three tensors.

    Args:
        qkv: (images, h, w, 3, heads, d) in bf16, fp16 or fp32, of any strides. A window has at most
            64 tokens; d is a power of two from 16.
        scale: (heads,).
        table: ((2 window - 1)^2, heads), the bias of each relative position.
        side: Rows and columns of a window, as in models.backbone.windows.Windows.
        shift: Likewise.
        count: Likewise.
        min_norm: Shortest q or k that is scaled to length 1.

    Returns:
        (images, hw, D).
    """
    return _WindowAttention.apply(qkv, scale, table, Cut(side, shift, count), min_norm)


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, scale, table, cut, min_norm):
        """See ``window_attention``.

        Keeps its inputs and, where a gradient is wanted, the rows' totals.
        """
        ctx.cut = cut
        ctx.min_norm = min_norm
        images, height, width, _, heads, dim = qkv.shape
        units, shape = _launch_shape(qkv, table, cut)
        keep = any(ctx.needs_input_grad)
        out = qkv.new_empty(images, height * width, heads * dim)  # images hw D
        windows = images * math.prod(cut.count) if keep else 0
        log_total = torch.empty(
            windows, heads, shape["BLOCK"], dtype=torch.float32, device=qkv.device
        )  # windows heads L
        if out.numel():
            forward_kernel[(heads * units,)](
                qkv,
                scale,
                table,
                out,
                log_total,
                *qkv.stride(),
                *table.stride(),
                1 / min_norm,
                heads,
                **shape,
                KEEP=keep,
                **_options(qkv),
            )
        ctx.save_for_backward(qkv, scale, table, log_total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        """Gradients of qkv, scale and table from that of the result (images, hw, D)."""
        qkv, scale, table, log_total = ctx.saved_tensors
        heads = qkv.shape[-2]
        units, shape = _launch_shape(qkv, table, ctx.cut)
        block = shape["BLOCK"]
        splits = min(units, max(1, _processors(qkv.device) * BACKWARD_PROGRAMS // heads))
        d_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)  # images h w 3 heads d
        d_scale = torch.empty(splits, heads, dtype=torch.float32, device=qkv.device)  # splits heads
        d_bias = d_scale.new_empty(splits, heads, block, block)  # splits heads L L
        d_table = d_scale.new_empty(table.shape)  # (2w-1)^2 heads
        if d_qkv.numel():
            backward_kernel[heads, splits](
                qkv,
                scale,
                table,
                log_total,
                gradient,
                d_qkv,
                d_scale,
                d_bias,
                *qkv.stride(),
                *table.stride(),
                *gradient.stride(),
                1 / ctx.min_norm,
                units,
                **shape,
                **_options(qkv),
            )
        table_gradient_kernel[triton.cdiv(len(table), ENTRIES), heads](
            d_bias,
            d_table,
            splits,
            ENTRIES=ENTRIES,
            WINDOW=shape["WINDOW"],
            SIDE_Y=shape["SIDE_Y"],
            SIDE_X=shape["SIDE_X"],
            BLOCK=block,
        )
        return d_qkv, d_scale.sum(0).to(scale.dtype), d_table.to(table.dtype), None, None


def _launch_shape(qkv: Tensor, table: Tensor, cut: Cut) -> tuple[int, dict[str, Any]]:
    """Units of work of a head, and the arguments that both kernels share."""
    images, height, width, _, _, dim = qkv.shape
    tokens = math.prod(cut.side)
    block = max(16, triton.next_power_of_2(tokens))
    rows = cut.side[0] * cut.count[0]
    columns = cut.side[1] * cut.count[1]
    padded = block != tokens or (rows, columns) != (height, width)
    chunks = math.ceil(images / IMAGES)
    arguments = {
        "images": images,
        "chunk": math.ceil(images / max(chunks, 1)),
        "height": height,
        "width": width,
        "down": cut.count[0],
        "across": cut.count[1],
        "WINDOW": (math.isqrt(len(table)) + 1) // 2,
        "SIDE_Y": cut.side[0],
        "SIDE_X": cut.side[1],
        "SHIFT_Y": cut.shift[0],
        "SHIFT_X": cut.shift[1],
        "BLOCK": block,
        "DIM": dim,
        "PADDED": padded,
        "MASKED": padded or any(cut.shift),
    }
    return chunks * math.prod(cut.count), arguments


def _options(qkv: Tensor) -> dict[str, int]:
    """Two windows in flight.

    float32 has no matrix unit and needs more registers, so it is spread over more threads.
    """
    return {"num_warps": 8 if qkv.dtype == torch.float32 else 4, "num_stages": 2}


def _processors(device: torch.device) -> int:
    """Multiprocessors of a device; few where kernels are interpreted."""
    if not is_gpu(device):
        return 2
    return processors(device)
