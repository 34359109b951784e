"""The Triton code of window_attention.py, which says how it works and what it costs."""

import math

import triton
import triton.language as tl

LOG2E = tl.constexpr(math.log2(math.e))  # the hardware's exponential has base 2
# The long lists of parameters stand in rows by subject (fmt: skip): one a line would hide the body.
# Numbers none of whose properties is worth another compilation.
PLAIN = ("heads", "units", "images", "chunk", "height", "width", "down", "across", "splits")


@triton.jit(do_not_specialize=PLAIN)
def forward_kernel(
    qkv, scale, table, out, log_total,
    s_image, s_row, s_column, s_part, s_head, s_dim,  # strides of qkv
    t_entry, t_head,  # strides of the table
    longest,
    heads, images, chunk, height, width, down, across,
    WINDOW: tl.constexpr, SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr,
    SHIFT_Y: tl.constexpr, SHIFT_X: tl.constexpr,
    BLOCK: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr,
    MASKED: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    # heads of a window run together: they share pages
    head = tl.program_id(0) % heads
    unit = tl.program_id(0) // heads
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
def backward_kernel(
    qkv, scale, table, log_total, gradient, d_qkv, d_scale, d_bias,
    s_image, s_row, s_column, s_part, s_head, s_dim,  # strides of qkv
    t_entry, t_head,  # strides of the table
    g_image, g_token, g_channel,  # strides of the gradient
    longest,
    units, images, chunk, height, width, down, across,
    WINDOW: tl.constexpr, SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr,
    SHIFT_Y: tl.constexpr, SHIFT_X: tl.constexpr,
    BLOCK: tl.constexpr, DIM: tl.constexpr, PADDED: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    heads = tl.num_programs(0)
    windows = down * across
    i = tl.arange(0, BLOCK)
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
def table_gradient_kernel(
    d_bias,
    d_table,
    splits,
    WINDOW: tl.constexpr,
    SIDE_Y: tl.constexpr,
    SIDE_X: tl.constexpr,
    BLOCK: tl.constexpr,
    ENTRIES: tl.constexpr,
):
    """Compute entries of the table.

    Each is the sum over programs, and over the queries whose key at that offset is in the window.
    """
    span: tl.constexpr = 2 * WINDOW - 1
    head = tl.program_id(1)
    heads = tl.num_programs(1)
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

    Tokens attend to those of their region. It is 0 to 3 by whether they came in from the far side
    of the grid, down or across. It is -1 for padding, which no real token sees and whose result is
    not written.
    """
    i = tl.arange(0, BLOCK)
    y = window // across * SIDE_Y + i // SIDE_X + SHIFT_Y
    x = window % across * SIDE_X + i % SIDE_X + SHIFT_X
    rolled_y = y >= down * SIDE_Y
    rolled_x = x >= across * SIDE_X
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
    """One head's bias of all pairs of a window (L L), in powers of two.

    It is -inf where the query does not see the key.
    """
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

    The dot products are of q and k as stored, exact in float32. The norms are applied afterwards.
    """
    q_inverse = _inverse_norm(q, longest)
    k_inverse = _inverse_norm(k, longest)
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
    """Take the gradient through unit = x * inverse.

    Returns ``factor`` times the gradient of x, and gradient . unit. A short x was only multiplied
    by ``longest``, so its gradient is too.
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
    else:  # noqa: RET505 - Triton compiles only one branch of a constant condition
        return tl.load(at)


@triton.jit
def _store(rows, x, region, DIM: tl.constexpr, PADDED: tl.constexpr):
    at = rows[:, None] + tl.arange(0, DIM)[None]
    x = x.to(rows.dtype.element_ty)
    if PADDED:
        tl.store(at, x, mask=(region >= 0)[:, None])
    else:
        tl.store(at, x)
