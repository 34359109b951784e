"""The Triton code of sinkhorn.py, which says how it works."""

import triton
import triton.language as tl

# Below every score, but finite: the difference of two infinities would be NaN.
LOWEST = tl.constexpr(-3e38)
# Range of x up to which products of exponentials can replace logarithms. The logarithms of the
# scalings stay within 1.5 ranges of zero if x is centred (the iteration is nonexpansive, and its
# fixed point varies by one range at most). So a sum is at least exp(-66), and what underflows at
# exp(-87) is lost to its rounding. Cosines / 0.05 span 40.
NARROW = tl.constexpr(44.0)


@triton.jit
def whole_kernel(
    scores,
    mask,
    out,
    problems,
    N,
    inverse_epsilon,
    problem_stride,
    mask_problem_stride,
    mask_row_stride,
    M: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr,
    ITERATIONS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EACH: tl.constexpr,
):
    """Solve EACH problems, one after another, while the scores of the next one are loaded.

    M and the strides are constants: the compiler sees how wide a load may be.
    """
    row = tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    offsets = row[:, None].to(tl.int64) * ROW_STRIDE + column[None, :].to(tl.int64) * COLUMN_STRIDE
    for turn in tl.range(0, EACH, num_stages=2):
        problem = (tl.program_id(0) + turn * tl.num_programs(0)).to(tl.int64)
        rows = tl.where(problem < problems, N, 0)
        there = (row < rows)[:, None] & (column < M)[None, :]
        # all rows are read, masked ones too: waiting for the mask first would cost more
        x = tl.load(scores + problem * problem_stride + offsets, there, other=0.0).to(tl.float32)
        valid = (
            tl.load(
                mask + problem * mask_problem_stride + row * mask_row_stride, row < rows, other=0
            )
            != 0
        )
        counts = there & valid[:, None]
        x = tl.where(counts, x * inverse_epsilon, -float("inf"))
        # down the columns first: that needs no shuffles between threads
        high = tl.max(tl.max(x, 0), 0)
        low = tl.min(tl.min(tl.where(counts, x, float("inf")), 0), 0)
        if high - low <= NARROW:
            q = _by_products(tl.exp(x - (high + low) / 2), valid, column < M, M, ITERATIONS)
        else:
            q = _by_logarithms(x, valid, column < M, ITERATIONS)
        q = tl.where(valid[:, None], q, 0.0)
        tl.store(out + problem * N * M + row[:, None] * M + column[None, :], q, there)


@triton.jit
def _by_products(k, valid, there, M: tl.constexpr, ITERATIONS: tl.constexpr):
    """Scalings u, v of k, with one exponential an entry.

    u is kept near one, whatever N, M and the iterations.
    """
    ratio = M / tl.sum(valid.to(tl.float32), 0)
    u = tl.where(valid, 1.0, 0.0)
    for _ in range(ITERATIONS - 1):
        v = tl.where(there, 1 / tl.sum(k * u[:, None], 0), 0.0)
        u = tl.where(valid, ratio / tl.sum(k * v[None, :], 1), 0.0)
    v = tl.where(there, 1 / tl.sum(k * u[:, None], 0), 0.0)
    inverse = 1 / tl.sum(k * v[None, :], 1)
    return k * v[None, :] * inverse[:, None]


@triton.jit
def _by_logarithms(x, valid, there, ITERATIONS: tl.constexpr):
    """For any range of x. Rows and columns that do not count are -inf and stay so."""
    for _ in range(ITERATIONS - 1):
        x -= tl.where(there, _logsumexp(x, 0), 0.0)[None, :]
        x -= tl.where(valid, _logsumexp(x, 1), 0.0)[:, None]
    x -= tl.where(there, _logsumexp(x, 0), 0.0)[None, :]
    # softmax keeps the sums at one whatever the rounding of large scores
    e = tl.exp(x - tl.max(x, 1)[:, None])
    inverse = 1 / tl.sum(e, 1)
    return e * inverse[:, None]


@triton.jit
def _logsumexp(x, AXIS: tl.constexpr):
    peak = tl.max(x, AXIS)
    return peak + tl.log(tl.sum(tl.exp(x - tl.expand_dims(peak, AXIS)), AXIS))


@triton.jit
def _include(peak, total, z):
    """Add z to a running sum of exponentials, ``total`` exp(``peak``), with one exponential.

    NaN stays.
    """
    gap = z - peak
    e = tl.exp(-tl.abs(gap))
    total = tl.where(gap > 0, total * e + 1, total + e)
    return tl.maximum(peak, z), total


@triton.jit
def columns_kernel(
    scores,
    scalings,
    peaks,
    totals,
    N,
    M,
    spans,
    tiles,
    inverse_epsilon,
    problem_stride,
    row_stride,
    column_stride,
    SPAN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sums over the rows of one span, of COLUMNS columns; masked rows have the scaling -inf."""
    program = tl.program_id(0)
    span = program // tiles % spans
    problem = (program // tiles // spans).to(tl.int64)
    column = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    peak = tl.full([ROWS, COLUMNS], LOWEST, tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    first = scores + problem * problem_stride + column[None, :].to(tl.int64) * column_stride
    for start in range(0, SPAN, ROWS):
        row = span * SPAN + start + tl.arange(0, ROWS)
        u = tl.load(scalings + problem * N + row, row < N, other=-float("inf"))
        read = (u != -float("inf"))[:, None] & (column < M)[None, :]
        x = tl.load(first + row[:, None].to(tl.int64) * row_stride, read, other=-float("inf")).to(
            tl.float32
        )
        peak, total = _include(peak, total, x * inverse_epsilon + u[:, None])
    top = tl.max(peak, 0)
    total = tl.sum(total * tl.exp(peak - top[None, :]), 0)
    place = (problem * spans + span) * M + column
    tl.store(peaks + place, top, column < M)
    tl.store(totals + place, total, column < M)


@triton.jit
def add_spans_kernel(
    peaks, totals, sums, M, spans, tiles, SPANS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Logarithms of the sums over all spans, of COLUMNS columns."""
    program = tl.program_id(0)
    problem = (program // tiles).to(tl.int64)
    column = program % tiles * COLUMNS + tl.arange(0, COLUMNS)
    span = tl.arange(0, SPANS)
    place = (problem * spans + span[:, None]) * M + column[None, :]
    there = (span < spans)[:, None] & (column < M)[None, :]
    peak = tl.load(peaks + place, there, other=LOWEST)
    top = tl.max(peak, 0)
    total = tl.sum(tl.load(totals + place, there, other=0.0) * tl.exp(peak - top[None, :]), 0)
    tl.store(sums + problem * M + column, top + tl.log(total), column < M)


@triton.jit
def rows_kernel(
    scores,
    mask,
    sums,
    out,
    N,
    inverse_epsilon,
    problem_stride,
    row_stride,
    column_stride,
    mask_problem_stride,
    mask_row_stride,
    M: tl.constexpr,
    LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Scalings of ROWS rows, or with LAST their assignments."""
    groups = tl.cdiv(N, ROWS)
    problem = (tl.program_id(0) // groups).to(tl.int64)
    row = tl.program_id(0) % groups * ROWS + tl.arange(0, ROWS)
    valid = (
        tl.load(mask + problem * mask_problem_stride + row * mask_row_stride, row < N, other=0) != 0
    )
    first = scores + problem * problem_stride + row[:, None].to(tl.int64) * row_stride
    sums += problem * M
    peak = tl.full([ROWS, COLUMNS], LOWEST, tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, M, COLUMNS):
        z = _scaled(
            first, sums, valid, start + tl.arange(0, COLUMNS), M, inverse_epsilon, column_stride
        )
        peak, total = _include(peak, total, z)
    top = tl.max(peak, 1)
    total = tl.sum(total * tl.exp(peak - top[:, None]), 1)
    if LAST:
        for start in range(0, M, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            z = _scaled(first, sums, valid, column, M, inverse_epsilon, column_stride)
            q = tl.where(valid[:, None], tl.exp(z - top[:, None]) * (1 / total)[:, None], 0.0)
            place = (problem * N + row[:, None]) * M + column[None, :]
            tl.store(out + place, q, (row < N)[:, None] & (column < M)[None, :])
    else:
        tl.store(
            out + problem * N + row, tl.where(valid, -(top + tl.log(total)), -float("inf")), row < N
        )


@triton.jit
def _scaled(first, sums, valid, column, M, inverse_epsilon, column_stride):
    """x - c at some columns of the rows that begin at ``first``; -inf where nothing is read."""
    read = valid[:, None] & (column < M)[None, :]
    x = tl.load(first + column[None, :].to(tl.int64) * column_stride, read, other=-float("inf")).to(
        tl.float32
    )
    c = tl.load(sums + column, column < M, other=0.0)
    return x * inverse_epsilon - c[None, :]
