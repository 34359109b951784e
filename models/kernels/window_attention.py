"""Scaled cosine attention in shifted windows (Swin V2), fused; the reference is
models.swin_v2.WindowAttention._attend.

A program serves one head and one window position at a time, in several images. It reads q, k and v
where they lie in the grid and writes the result to its place: roll, partition, padding, mask and
bias are index arithmetic.

The cost is that of moving data: at 64 tokens of 32 channels a window and head takes 2.6e5
multiply-adds for 16 KB in bf16, 32 FLOP a byte, where an H100 has the time for 200. So nothing is
written that can be computed again: the backward pass recomputes the softmax from q, k and the
logarithm of each row's total, 4 bytes a token and head, which spare it a tenth of its instructions.
It reads qkv and the gradient once and writes the gradient of qkv once.

The gradient of the bias is a sum over windows, held in registers by a program while it walks over
windows of its head and written once, 16 KB. There are as many programs as fit at once: with 11
heads on 132 multiprocessors 24 a head, so 4 MB beside 1.3 GB of a batch of 16 images of 128 x 128
tokens; one a window position would be 46 MB. ``_table_gradient`` adds programs and pairs in a fixed
order. Nothing is atomic: the same input gives the same bits.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG2E = tl.constexpr(math.log2(math.e))  # the hardware's exponential has base 2
BACKWARD_PROGRAMS = (
    2  # that a multiprocessor holds at once, by their 255 registers; more only add partial sums
)
# A unit of work is one window position in up to so many images, which share places, mask and bias:
# about 700 instructions, where the rest of a window takes 1000. Larger units leave more programs
# idle at the end.
IMAGES = 8
ENTRIES = 16  # rows of the bias table a program of _table_gradient serves
# Numbers of which no property is worth another compilation.
PLAIN = ("heads", "units", "images", "chunk", "height", "width", "down", "across", "splits")


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
    """softmax(scale cos(q, k) + bias) v inside windows: qkv (images, h, w, 3, heads, d) -> (images,
    hw, D).

    scale (heads,), table ((2 window - 1)^2, heads): bias of each relative position. side, shift,
    count: see models.swin_v2.Windows. min_norm: shortest q or k that is scaled to length 1. qkv is
    bf16, fp16 or fp32 with any strides; a window has at most 64 tokens, d is a power of two from
    16. Differentiable once in the three tensors.
    """
    return _WindowAttention.apply(qkv, scale, table, (side, shift, count), min_norm)


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, scale, table, cut, min_norm):
        """See ``window_attention``; keeps its inputs and, where a gradient is wanted, the rows'
        totals."""
        ctx.cut, ctx.min_norm = cut, min_norm
        images, height, width, _, heads, dim = qkv.shape
        units, shape = _describe(qkv, table, cut)
        keep = any(ctx.needs_input_grad)
        out = qkv.new_empty(images, height * width, heads * dim)  # images hw D
        rows = (images * math.prod(cut[2]) if keep else 0, heads, shape["BLOCK"])
        log_total = torch.empty(rows, dtype=torch.float32, device=qkv.device)  # windows heads L
        if out.numel():
            _forward[(heads * units,)](
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
        units, shape = _describe(qkv, table, ctx.cut)
        splits = min(units, max(1, _processors(qkv.device) * BACKWARD_PROGRAMS // heads))
        d_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)  # images h w 3 heads d
        d_scale = torch.empty(splits, heads, dtype=torch.float32, device=qkv.device)  # splits heads
        d_bias = d_scale.new_empty(
            splits, heads, shape["BLOCK"], shape["BLOCK"]
        )  # splits heads L L
        d_table = d_scale.new_empty(table.shape)  # (2w-1)^2 heads
        if d_qkv.numel():
            _backward[heads, splits](
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
        _table_gradient[triton.cdiv(len(table), ENTRIES), heads](
            d_bias,
            d_table,
            splits,
            ENTRIES=ENTRIES,
            **{name: shape[name] for name in ("WINDOW", "SIDE_Y", "SIDE_X", "BLOCK")},
        )
        return d_qkv, d_scale.sum(0).to(scale.dtype), d_table.to(table.dtype), None, None


def _describe(qkv: Tensor, table: Tensor, cut: tuple) -> tuple[int, dict]:
    """Units of work of a head, and the arguments both kernels have in common."""
    images, height, width, _, _, dim = qkv.shape
    side, shift, count = cut
    tokens = math.prod(side)
    block = max(16, triton.next_power_of_2(tokens))
    padded = block != tokens or (side[0] * count[0], side[1] * count[1]) != (height, width)
    chunks = math.ceil(images / IMAGES)
    return chunks * math.prod(count), dict(
        images=images,
        chunk=math.ceil(images / max(chunks, 1)),
        height=height,
        width=width,
        down=count[0],
        across=count[1],
        WINDOW=(math.isqrt(len(table)) + 1) // 2,
        SIDE_Y=side[0],
        SIDE_X=side[1],
        SHIFT_Y=shift[0],
        SHIFT_X=shift[1],
        BLOCK=block,
        DIM=dim,
        PADDED=padded,
        MASKED=padded or any(shift),
    )


def _options(qkv: Tensor) -> dict[str, int]:
    """Two windows in flight. float32 has no matrix unit and needs more registers: spread over more
    threads."""
    return {"num_warps": 8 if qkv.dtype == torch.float32 else 4, "num_stages": 2}


def _processors(device: torch.device) -> int:
    return (
        torch.cuda.get_device_properties(device).multi_processor_count
        if device.type == "cuda"
        else 2
    )


@triton.jit(do_not_specialize=PLAIN)
def _forward(
    qkv,
    scale,
    table,
    out,
    log_total,
    s_image,
    s_row,
    s_column,
    s_part,
    s_head,
    s_dim,
    t_entry,
    t_head,
    longest,
    heads,
    images,
    chunk,
    height,
    width,
    down,
    across,
    WINDOW: tl.constexpr,
    SIDE_Y: tl.constexpr,
    SIDE_X: tl.constexpr,
    SHIFT_Y: tl.constexpr,
    SHIFT_X: tl.constexpr,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    MASKED: tl.constexpr,
    KEEP: tl.constexpr,
):
    head, unit = (
        tl.program_id(0) % heads,
        tl.program_id(0) // heads,
    )  # heads of a window run together: they share pages
    windows = down * across
    y, x, region = _place(
        unit % windows, height, width, down, across, SIDE_Y, SIDE_X, SHIFT_Y, SHIFT_X, BLOCK
    )  # L
    bias = _bias(
        table + head * t_head, t_entry, region, WINDOW, SIDE_Y, SIDE_X, BLOCK, MASKED
    )  # L L
    temperature = tl.load(scale + head).to(tl.float32) * LOG2E
    rows = qkv + head * s_head + (y * s_row + x * s_column)  # L
    out_rows = out + head * DIM + (y * width + x) * heads * DIM  # L
    first = unit // windows * chunk
    for image in tl.range(first.to(tl.int64), tl.minimum(first + chunk, images).to(tl.int64)):
        q = _load(rows + image * s_image, s_dim, region, DIM, PADDED)  # L d
        k = _load(rows + image * s_image + s_part, s_dim, region, DIM, PADDED)  # L d
        v = _load(rows + image * s_image + 2 * s_part, s_dim, region, DIM, PADDED)  # L d
        logits, _, _ = _logits(q, k, bias, temperature, longest)  # L L
        top = tl.max(logits, 1)  # L
        weights = tl.exp2(logits - top[:, None])  # L L
        total = tl.sum(weights, 1)  # L
        result = (
            tl.dot(weights.to(v.dtype), v, input_precision="ieee") * (1 / total)[:, None]
        )  # L d
        _store(out_rows + image * height * width * heads * DIM, result, region, DIM, PADDED)
        if KEEP:
            at = (
                log_total
                + ((image * windows + unit % windows) * heads + head) * BLOCK
                + tl.arange(0, BLOCK)
            )
            tl.store(at, top + tl.log2(total))


@triton.jit(do_not_specialize=PLAIN)
def _backward(
    qkv,
    scale,
    table,
    log_total,
    gradient,
    d_qkv,
    d_scale,
    d_bias,
    s_image,
    s_row,
    s_column,
    s_part,
    s_head,
    s_dim,
    t_entry,
    t_head,
    g_image,
    g_token,
    g_channel,
    longest,
    units,
    images,
    chunk,
    height,
    width,
    down,
    across,
    WINDOW: tl.constexpr,
    SIDE_Y: tl.constexpr,
    SIDE_X: tl.constexpr,
    SHIFT_Y: tl.constexpr,
    SHIFT_X: tl.constexpr,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    MASKED: tl.constexpr,
):
    head, heads, windows, i = (
        tl.program_id(0),
        tl.num_programs(0),
        down * across,
        tl.arange(0, BLOCK),
    )
    factor = tl.load(scale + head).to(tl.float32)
    bias_sum = tl.zeros((BLOCK, BLOCK), tl.float32)
    scale_sum = tl.zeros((BLOCK,), tl.float32)
    for unit in tl.range(tl.program_id(1), units, tl.num_programs(1), disable_licm=True):
        y, x, region = _place(
            unit % windows, height, width, down, across, SIDE_Y, SIDE_X, SHIFT_Y, SHIFT_X, BLOCK
        )
        bias = _bias(
            table + head * t_head, t_entry, region, WINDOW, SIDE_Y, SIDE_X, BLOCK, MASKED
        )  # L L
        rows = qkv + head * s_head + (y * s_row + x * s_column)  # L
        g_rows = gradient + head * DIM * g_channel + (y * width + x) * g_token  # L
        d_rows = d_qkv + head * DIM + (y * width + x) * 3 * heads * DIM  # L
        first = unit // windows * chunk
        for image in tl.range(first.to(tl.int64), tl.minimum(first + chunk, images).to(tl.int64)):
            q = _load(rows + image * s_image, s_dim, region, DIM, PADDED)  # L d
            k = _load(rows + image * s_image + s_part, s_dim, region, DIM, PADDED)  # L d
            v = _load(rows + image * s_image + 2 * s_part, s_dim, region, DIM, PADDED)  # L d
            d_out = _load(g_rows + image * g_image, g_channel, region, DIM, PADDED)  # L d
            logits, q_inverse, k_inverse = _logits(q, k, bias, factor * LOG2E, longest)  # L L, L, L
            level = tl.load(
                log_total + ((image * windows + unit % windows) * heads + head) * BLOCK + i
            )  # L
            weights = tl.exp2(logits - level[:, None])  # L L
            d_v = tl.dot(tl.trans(weights.to(v.dtype)), d_out, input_precision="ieee")  # L d
            d_weights = tl.dot(d_out, tl.trans(v), input_precision="ieee")  # L L
            d_logits = weights * (d_weights - tl.sum(weights * d_weights, 1)[:, None])  # L L
            bias_sum += d_logits
            d_logits = d_logits.to(q.dtype)
            # first the gradients of q and k of length 1, both without the factor scale
            d_q = tl.dot(d_logits, _scaled(k, k_inverse), input_precision="ieee")  # L d
            d_k = tl.dot(tl.trans(d_logits), _scaled(q, q_inverse), input_precision="ieee")  # L d
            d_q, cosine_sum = _before_norm(d_q, q, q_inverse, factor, longest)  # L d, L
            d_k, _ = _before_norm(d_k, k, k_inverse, factor, longest)  # L d
            scale_sum += cosine_sum
            at = d_rows + image * height * width * 3 * heads * DIM  # L
            _store(at, d_q, region, DIM, PADDED)
            _store(at + heads * DIM, d_k, region, DIM, PADDED)
            _store(at + 2 * heads * DIM, d_v, region, DIM, PADDED)
    program = tl.program_id(1) * heads + head
    tl.store(d_scale + program, tl.sum(scale_sum, 0))
    tl.store(d_bias + program * BLOCK * BLOCK + i[:, None] * BLOCK + i[None], bias_sum)


@triton.jit(do_not_specialize=PLAIN)
def _table_gradient(
    d_bias,
    d_table,
    splits,
    WINDOW: tl.constexpr,
    SIDE_Y: tl.constexpr,
    SIDE_X: tl.constexpr,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Entry of the table: the sum over programs, and over the queries whose key at that offset is
    in the window."""
    span: tl.constexpr = 2 * WINDOW - 1
    head, heads = tl.program_id(1), tl.num_programs(1)
    entry = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    query = tl.arange(0, BLOCK)
    y = (query // SIDE_X)[None] - (entry // span - (WINDOW - 1))[
        :, None
    ]  # entries L, row of the key
    x = (query % SIDE_X)[None] - (entry % span - (WINDOW - 1))[:, None]  # entries L
    inside = (y >= 0) & (y < SIDE_Y) & (x >= 0) & (x < SIDE_X) & (query < SIDE_Y * SIDE_X)[None]
    at = d_bias + head * BLOCK * BLOCK + query[None] * BLOCK + y * SIDE_X + x  # entries L
    total = tl.zeros((ENTRIES, BLOCK), tl.float32)
    for split in tl.range(0, splits, loop_unroll_factor=4):  # several loads on their way
        total += tl.load(at + split * heads * BLOCK * BLOCK, mask=inside, other=0.0)
    tl.store(d_table + entry * heads + head, tl.sum(total, 1), mask=entry < span * span)


@triton.jit
def _place(
    window,
    height,
    width,
    down,
    across,
    SIDE_Y: tl.constexpr,
    SIDE_X: tl.constexpr,
    SHIFT_Y: tl.constexpr,
    SHIFT_X: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Number of a window in its grid -> row, column and region of its tokens (L).

    Tokens attend to those of their region: 0 to 3 by whether they came in from the far side of the
    grid, down or across; -1 for padding, which nothing real sees and whose result is not written.
    """
    i = tl.arange(0, BLOCK)
    y = window // across * SIDE_Y + i // SIDE_X + SHIFT_Y
    x = window % across * SIDE_X + i % SIDE_X + SHIFT_X
    rolled_y, rolled_x = y >= down * SIDE_Y, x >= across * SIDE_X
    y = tl.where(rolled_y, y - down * SIDE_Y, y)
    x = tl.where(rolled_x, x - across * SIDE_X, x)
    real = (i < SIDE_Y * SIDE_X) & (y < height) & (x < width)
    region = tl.where(real, 2 * rolled_y.to(tl.int32) + rolled_x.to(tl.int32), -1)
    return y, x, region


@triton.jit
def _bias(
    table,
    stride,
    region,
    WINDOW: tl.constexpr,
    SIDE_Y: tl.constexpr,
    SIDE_X: tl.constexpr,
    BLOCK: tl.constexpr,
    MASKED: tl.constexpr,
):
    """One head's bias of all pairs of a window (L L), in powers of two; -inf where the query does
    not see the key."""
    i = tl.arange(0, BLOCK)
    y = (i // SIDE_X)[:, None] - (i // SIDE_X)[None] + WINDOW - 1
    x = (i % SIDE_X)[:, None] - (i % SIDE_X)[None] + WINDOW - 1
    real = i < SIDE_Y * SIDE_X
    at = table + (y * (2 * WINDOW - 1) + x) * stride
    bias = tl.load(at, mask=real[:, None] & real[None], other=0.0).to(tl.float32) * LOG2E
    if MASKED:
        bias = tl.where(region[:, None] == region[None], bias, -float("inf"))
    return bias


@triton.jit
def _logits(q, k, bias, temperature, longest):
    """Logits (L L) in powers of two, and min(1 / norm, longest) of q and k (L).

    The dot products are of q and k as stored, exact in float32; the norms come in afterwards.
    """
    q_inverse, k_inverse = _inverse_norm(q, longest), _inverse_norm(k, longest)
    dots = tl.dot(q, tl.trans(k), input_precision="ieee")  # L L
    return dots * (q_inverse * temperature)[:, None] * k_inverse[None] + bias, q_inverse, k_inverse


@triton.jit
def _inverse_norm(x, longest):
    x = x.to(tl.float32)
    return tl.minimum(tl.rsqrt(tl.sum(x * x, 1)), longest)  # L


@triton.jit
def _scaled(x, factor):
    return (x.to(tl.float32) * factor[:, None]).to(x.dtype)  # L d


@triton.jit
def _before_norm(gradient, x, inverse, factor, longest):
    """From the gradient of unit = x * inverse ``factor`` times that of x, and gradient . unit.

    A short x was only multiplied by ``longest``, so its gradient is too.
    """
    x = x.to(tl.float32)
    along = tl.sum(gradient * x, 1) * inverse  # L
    turn = tl.where(inverse < longest, along * inverse, 0.0)  # L
    return (gradient - x * turn[:, None]) * (inverse * factor)[:, None], along


@triton.jit
def _load(rows, stride, region, DIM: tl.constexpr, PADDED: tl.constexpr):
    at = rows[:, None] + tl.arange(0, DIM)[None] * stride
    if PADDED:
        return tl.load(at, mask=(region >= 0)[:, None], other=0.0)
    else:
        return tl.load(at)


@triton.jit
def _store(rows, x, region, DIM: tl.constexpr, PADDED: tl.constexpr):
    at = rows[:, None] + tl.arange(0, DIM)[None]
    x = x.to(rows.dtype.element_ty)
    if PADDED:
        tl.store(at, x, mask=(region >= 0)[:, None])
    else:
        tl.store(at, x)
