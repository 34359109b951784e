"""The Triton code of experts.py, which says how it works and what it costs."""

import triton
import triton.language as tl


@triton.jit
def scatter_kernel(
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
    has_row = row >= 0
    if WEIGHTED:
        factor = tl.load(weight + token * weight_step).to(tl.float32)
        bias += _group(row, ends, GROUPS, GROUPS_PADDED) * WIDTH
        products = tl.zeros((COLUMNS,), tl.float32)
    for start in tl.static_range(0, WIDTH, COLUMNS):
        k = start + tl.arange(0, COLUMNS)
        inside = (k < WIDTH) & has_row
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
def gather_kernel(
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
    has_row = row >= 0
    if WEIGHTED:
        factor = tl.load(weight + token * weight_step).to(tl.float32)
        bias += _group(row, ends, GROUPS, GROUPS_PADDED) * WIDTH
    for start in tl.static_range(0, WIDTH, COLUMNS):
        k = start + tl.arange(0, COLUMNS)
        inside = (k < WIDTH) & has_row
        value = tl.load(rows + row * WIDTH + k, inside, other=0.0)
        if WEIGHTED:
            value = (
                value.to(tl.float32) + tl.load(bias + k, inside, other=0.0).to(tl.float32)
            ) * factor
            value = tl.where(has_row, value, 0.0)
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
    group = tl.program_id(1) // SPANS
    part = tl.program_id(1) % SPANS
    start = tl.load(ends + group - 1, group > 0, other=0)
    end = tl.load(ends + group)
    length = tl.cdiv(end - start, SPANS)
    first = start + part * length
    return group, first, tl.minimum(first + length, end)


@triton.jit
def _normal(z):
    """Probability that a standard normal number is below z."""
    return 0.5 * (1 + tl.erf(z * 0.7071067811865476))


@triton.jit
def activate_kernel(
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
def sum_spans_kernel(
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
