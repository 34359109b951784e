"""Blocks of the head loss on a GPU.

``models.pretraining.losses.head_tiles`` is the reference and says what each function does.

Products: at a temperature of 0.04 an error of e in a cosine is one of 25 e in a probability.
Largest errors of probabilities, 512 rows, 8192 prototypes, 256 channels, emulated on a CPU: float32
2e-5, TF32 5e-3, bf16 4e-2. Float32 leaves the matrix units idle, 15 times slower. So each number is
split in two bf16, x = hi + lo with 16 bits, and hi hi + lo hi + hi lo is accumulated in float32:
7e-5, by one cuBLAS product three times as deep.

Why a block of logits passes through memory, for 4096 rows, 65,536 prototypes and 256 channels, by
counting: a product takes 0.6 ms at 650 TFLOP/s; writing its logits and reading them once, 0.5 ms at
4.2 TB/s. A kernel that keeps logits in registers would save the latter. But no row is normalised
before all its prototypes are seen, so it would compute all of the teacher's products but the first
twice, and those of student and targets once for each of loss, rows and prototypes. Therefore cuBLAS
computes the products, and the kernels here are bound by memory.

No atomics: every sum has one owner and a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.gpu import is_gpu

# Logits held at once: 64 MiB of float32. Fewer would make the products of the gradients too
# shallow.
BLOCK = 1 << 24

LOWEST = tl.constexpr(-3.4028234663852886e38)  # not -inf: the difference of two would be NaN
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NOWHERE = tl.constexpr(2**31 - 1)


def block_size(device: torch.device) -> int:
    """Logits held at once, the same on all devices."""
    return BLOCK


def left(x: Tensor) -> Tensor:
    """Features (N, D) float32 -> (N, 3 D) bf16: hi, lo, hi."""
    high, low = _split(x)
    return torch.cat([high, low, high], dim=1)


def right(x: Tensor) -> Tensor:
    """Prototypes (K, D) float32 -> (K, 3 D) bf16: hi, hi, lo."""
    high, low = _split(x)
    return torch.cat([high, high, low], dim=1)


def product(features: Tensor, prototypes: Tensor) -> Tensor:
    """Logits (N, K) float32 of ``left`` features and ``right`` prototypes."""
    return _multiply(features, prototypes.mT)


def add_columns(sums: Tensor, logits: Tensor, *, scale: float, mask: Tensor) -> None:
    """Add sum_n exp(scale logits_nk) over the rows in ``mask`` (N,) to ``sums`` (K,) in place.

    The sums are kept as logarithms.
    """
    count, prototypes = logits.shape
    width = 128
    _add_columns[(triton.cdiv(prototypes, width),)](
        logits, mask, sums, count, prototypes, scale, HEIGHT=16, WIDTH=width, num_warps=4
    )


def normalise(
    mass: Tensor, logits: Tensor, *, scale: float, columns: Tensor, mask: Tensor, figures: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise the rows, and add those in ``mask`` to ``mass`` (K,) in place.

    Returns:
        Log normalisers, entropies and places of the largest, (N,) each. The kernel computes the
        last two whatever ``figures`` says.
    """
    sums, entropy, best = _normalise_rows(logits, scale=scale, columns=columns)
    count, prototypes = logits.shape
    width = 128
    _add_mass[(triton.cdiv(prototypes, width),)](
        logits,
        mask,
        columns,
        sums,
        mass,
        count,
        prototypes,
        scale,
        HEIGHT=16,
        WIDTH=width,
        num_warps=4,
    )
    return sums, entropy, best


def cross_entropy(
    logits: Tensor,
    teacher: Tensor,
    *,
    scale: float,
    teacher_scale: float,
    columns: Tensor,
    rows: Tensor,
    weight: Tensor,
    gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Cross-entropies (N,) and, if wanted, their gradient as (3, N, K) bf16: hi, lo, hi."""
    number, partners, prototypes = teacher.shape
    sums, _, _ = _normalise_rows(logits, scale=scale, columns=None)  # N
    part = min(8192, triton.next_power_of_2(prototypes))  # prototypes that a program works on
    inner = logits.new_empty(number, triton.cdiv(prototypes, part))  # N parts
    d_logits = None
    if gradient:
        d_logits = torch.empty(3, number, prototypes, dtype=torch.bfloat16, device=logits.device)
    _cross_entropy[inner.shape](
        logits,
        teacher,
        columns,
        rows.contiguous(),
        sums,
        weight,
        inner,
        d_logits,
        prototypes,
        number * prototypes,
        scale,
        teacher_scale,
        PARTNERS=partners,
        GRADIENT=gradient,
        PART=part,
        WIDTH=min(part, 1024),
        num_warps=4,
    )
    return sums * weight - inner.sum(dim=1) * scale, d_logits


def pull_back(gradient: Tensor, features: Tensor, prototypes: Tensor, *, total: Tensor) -> Tensor:
    """Take the gradient of the logits back through their product.

    Returns:
        The gradient (N, D) of the ``left`` features. That of the ``right`` prototypes is added to
        ``total`` (K, D).
    """
    depth = total.shape[1]
    high, low, _ = features.unflatten(1, (3, depth)).unbind(1)  # N D
    _multiply(gradient.flatten(0, 1).mT, torch.cat([high, high, low]), total)
    # all four products of two halves at once: one product of 2 N rows rather than three of N
    parts = _multiply(gradient[:2].flatten(0, 1), prototypes[:, depth:])  # 2N 2D
    return parts.unflatten(0, (2, -1)).unflatten(2, (2, depth)).sum(dim=(0, 2))  # N D


def _normalise_rows(
    logits: Tensor, *, scale: float, columns: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log normalisers, entropies and places of the largest, (N,) each."""
    count, prototypes = logits.shape
    sums, entropy = logits.new_empty(2, count)  # N
    best = torch.empty(count, dtype=torch.long, device=logits.device)  # N
    _rows[(count,)](
        logits,
        columns,
        sums,
        entropy,
        best,
        scale,
        PROTOTYPES=prototypes,
        COLUMNS=columns is not None,
        WIDTH=2048,
        num_warps=8,
    )
    return sums, entropy, best


def _multiply(a: Tensor, b: Tensor, total: Tensor | None = None) -> Tensor:
    """a @ b of bf16 in float32; added to ``total``, if there is one, in place."""
    if not is_gpu(a.device):  # interpreted; a product of two bf16 is exact in float32
        if total is None:
            return a.float() @ b.float()
        return total.addmm_(a.float(), b.float())
    if total is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.addmm(total, a, b, out_dtype=torch.float32, out=total)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two bf16 whose sum is x to 16 bits."""
    high = x.bfloat16()
    return high, (x - high).bfloat16()


@triton.jit
def _halves(x):
    high = x.to(tl.bfloat16)
    return high, (x - high.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _rows(
    logits_ptr,
    columns_ptr,
    sums_ptr,
    entropy_ptr,
    best_ptr,
    scale,
    PROTOTYPES: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Normalise one row a program, in powers of two.

    Each lane keeps its own running softmax; they are merged at the end.
    """
    row = tl.program_id(0)
    logits_ptr += row.to(tl.int64) * PROTOTYPES
    peak = tl.full((WIDTH,), LOWEST, tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)  # sum of 2^(x - peak)
    moment = tl.zeros((WIDTH,), tl.float32)  # sum of 2^(x - peak) x
    best = tl.full((WIDTH,), NOWHERE, tl.int32)
    for start in range(0, PROTOTYPES, WIDTH):
        k = start + tl.arange(0, WIDTH)
        inside = k < PROTOTYPES
        x = tl.load(logits_ptr + k, inside, other=0.0) * scale
        if COLUMNS:
            x += tl.load(columns_ptr + k, inside, other=0.0)
        x *= LOG2E
        best = tl.where(inside & ((x > peak) | (best == NOWHERE)), k, best)
        higher = tl.where(inside, tl.maximum(peak, x), peak)
        fade = tl.exp2(peak - higher)
        weight = tl.where(inside, tl.exp2(x - higher), 0.0)
        total = total * fade + weight
        moment = moment * fade + weight * x
        peak = higher
    top = tl.max(peak, 0)
    best = tl.min(tl.where(peak == top, best, NOWHERE), 0)
    fade = tl.exp2(peak - top)
    total = tl.sum(total * fade, 0)
    moment = tl.sum(moment * fade, 0) / total
    normaliser = tl.log2(total) + top
    tl.store(sums_ptr + row, normaliser * LN2)
    tl.store(entropy_ptr + row, (normaliser - moment) * LN2)
    tl.store(best_ptr + row, best)


@triton.jit
def _add_columns(
    logits_ptr,
    mask_ptr,
    sums_ptr,
    count,
    prototypes,
    scale,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Sum WIDTH columns over all rows of the block; each lane keeps its own running sum."""
    k = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    peak = tl.full((HEIGHT, WIDTH), LOWEST, tl.float32)
    total = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for start in range(0, count, HEIGHT):
        n = start + tl.arange(0, HEIGHT)
        used = tl.load(mask_ptr + n, n < count, other=0) != 0
        inside = used[:, None] & (k < prototypes)[None, :]
        x = tl.load(
            logits_ptr + n.to(tl.int64)[:, None] * prototypes + k[None, :], inside, other=0.0
        )
        x = tl.where(inside, x * (scale * LOG2E), LOWEST)
        higher = tl.maximum(peak, x)
        total = total * tl.exp2(peak - higher) + tl.where(inside, tl.exp2(x - higher), 0.0)
        peak = higher
    before = tl.load(sums_ptr + k, k < prototypes, other=0.0) * LOG2E
    top = tl.maximum(tl.max(peak, 0), before)
    total = tl.sum(total * tl.exp2(peak - top[None, :]), 0) + tl.exp2(before - top)
    tl.store(sums_ptr + k, (tl.log2(total) + top) * LN2, k < prototypes)


@triton.jit
def _add_mass(
    logits_ptr,
    mask_ptr,
    columns_ptr,
    rows_ptr,
    mass_ptr,
    count,
    prototypes,
    scale,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Do as ``_add_columns`` for rows whose log normalisers are known."""
    k = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    columns = tl.load(columns_ptr + k, k < prototypes, other=0.0)
    total = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for start in range(0, count, HEIGHT):
        n = start + tl.arange(0, HEIGHT)
        used = tl.load(mask_ptr + n, n < count, other=0) != 0
        row = tl.load(rows_ptr + n, used, other=0.0)
        inside = used[:, None] & (k < prototypes)[None, :]
        x = tl.load(
            logits_ptr + n.to(tl.int64)[:, None] * prototypes + k[None, :], inside, other=0.0
        )
        x = (x * scale + columns[None, :] - row[:, None]) * LOG2E
        total += tl.where(inside, tl.exp2(x), 0.0)
    before = tl.load(mass_ptr + k, k < prototypes, other=0.0)
    tl.store(mass_ptr + k, before + tl.sum(total, 0), k < prototypes)


@triton.jit
def _cross_entropy(
    logits_ptr,
    teacher_ptr,
    columns_ptr,
    rows_ptr,
    sums_ptr,
    weight_ptr,
    inner_ptr,
    gradient_ptr,
    prototypes,
    plane,
    scale,
    teacher_scale,
    PARTNERS: tl.constexpr,
    GRADIENT: tl.constexpr,
    PART: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Take PART prototypes of one row.

    Computes sum_k t_k logits_k, and the gradient (softmax_k weight - t_k) scale.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    sums = tl.load(sums_ptr + row)
    weight = tl.load(weight_ptr + row)
    inner = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, PART, WIDTH):
        k = part * PART + start + tl.arange(0, WIDTH)
        inside = k < prototypes
        logits = tl.load(logits_ptr + row * prototypes + k, inside, other=0.0)
        columns = tl.load(columns_ptr + k, inside, other=0.0)
        target = tl.zeros((WIDTH,), tl.float32)
        for m in tl.static_range(PARTNERS):
            pair = row * PARTNERS + m
            offset = tl.load(rows_ptr + pair)
            x = (
                tl.load(teacher_ptr + pair * prototypes + k, inside, other=0.0) * teacher_scale
                + columns
            )
            target += tl.exp2((x + offset) * LOG2E)
        inner += tl.where(inside, target * logits, 0.0)
        if GRADIENT:
            mass = tl.exp2((logits * scale - sums) * LOG2E) * weight
            high, low = _halves((mass - target) * scale)
            out = gradient_ptr + row * prototypes + k
            tl.store(out, high, inside)
            tl.store(out + plane, low, inside)
            tl.store(out + 2 * plane, high, inside)
    tl.store(inner_ptr + row * tl.num_programs(1) + part, tl.sum(inner, 0))
