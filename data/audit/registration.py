"""Whether high-resolution pixels lie where the 10 m pixels say: the shift with the highest
correlation.

The high-resolution image, grey, is averaged over 10 m squares at every quarter of a cell. Both
images lose their mean over the cells around, since seasons change the brightness of fields more
than their edges. Each shift is judged by the normalised cross-correlation over the pixels valid in
both (Padfield, Masked object registration in the Fourier domain, IEEE TIP 2012); a parabola through
the peak gives the part below a quarter. A wrong answer is worse than none: a tile that is too
small, too flat, or without one clear peak is not judged.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

STEPS = 4  # averages a cell and axis
REACH = 4  # cells: greatest shift looked for
AROUND = 7  # cells: side of the square whose mean is taken away
# Measured on Sentinel-2 pairs of two days and on unrelated textures; docs/audit.md has the rates.
LEAST_CELLS = 24  # side of a tile that is judged
LEAST_CORRELATION = 0.4  # at the peak
LEAST_LEAD = 0.15  # of the peak over the correlations elsewhere
NEAR = 1.5  # cells around the peak that belong to it
LEAST_OVERLAP = 0.4  # of the tile's cells valid in both images, at a shift
FLAT = 1e-6  # a part of the image with less than this share of its variance has no texture


@dataclass(frozen=True)
class Registration:
    """The answer for one tile."""

    shift: (
        tuple[float, float] | None
    )  # cells down, right by which the high resolution is displaced; None: cannot tell
    reason: str = ""  # why not
    zero: float | None = None  # correlation as stored
    best: float | None = None  # at the peak
    lead: float | None = None  # of the peak over the highest correlation elsewhere

    @property
    def distance(self) -> float | None:
        """Length of the shift in cells."""
        return None if self.shift is None else float(np.hypot(*self.shift))


def register(
    fine: np.ndarray, fine_valid: np.ndarray, coarse: np.ndarray, coarse_valid: np.ndarray
) -> Registration:
    """Find how far ``fine`` is displaced against ``coarse``.

    Args:
        fine: high-resolution grey (P N, P N), P a multiple of 4.
        fine_valid, coarse_valid: bool (N, N), by cell.
        coarse: brightness (N, N).
    """
    cells = len(coarse)
    if cells < LEAST_CELLS:
        return Registration(None, f"{cells} x {cells} cells, fewer than {LEAST_CELLS} a side")
    fine, fine_valid = quarter_means(fine, fine_valid)
    fine = without_mean(fine, fine_valid, AROUND * STEPS + 1)
    cell_values = spread_cells(without_mean(coarse, coarse_valid, AROUND), coarse_valid)
    surface, overlap = masked_correlation(fine, fine_valid, *cell_values, REACH * STEPS)
    surface[overlap < LEAST_OVERLAP * cells**2] = np.nan
    return judge(surface)


def quarter_means(fine: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over one cell at every quarter cell: (P N, P N) and (N, N) -> (4N, 4N) and its
    validity.

    Element 4 i + k is the mean over cell i moved by k quarters; the last three a side would reach
    over the edge. A mean is valid if all of it comes from valid cells."""
    side = STEPS * len(valid)
    block = len(fine) // side
    quarters = fine.reshape(side, block, side, block).mean((1, 3), dtype=np.float64)  # 4N 4N
    covered = np.kron(valid, np.ones((STEPS, STEPS), bool))
    mean, whole = np.zeros((side, side)), np.zeros((side, side), bool)
    inner = (slice(None, side - STEPS + 1),) * 2
    mean[inner] = sliding_window_view(quarters, (STEPS, STEPS)).mean((2, 3))
    whole[inner] = sliding_window_view(covered, (STEPS, STEPS)).all((2, 3))
    return mean, whole


def spread_cells(coarse: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of cells (N, N) on the grid of quarter cells (4N, 4N), each at its cell's first
    quarter, where ``quarter_means`` has the mean over the same cell; all else is invalid."""
    side = STEPS * len(valid)
    spread, spread_valid = np.zeros((side, side)), np.zeros((side, side), bool)
    spread[::STEPS, ::STEPS], spread_valid[::STEPS, ::STEPS] = coarse, valid
    return spread, spread_valid


def without_mean(image: np.ndarray, valid: np.ndarray, side: int) -> np.ndarray:
    """Take the mean over the valid pixels in a square of odd ``side`` around each pixel away; 0
    where invalid."""

    def box(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            padding = [(side // 2, side // 2) if axis == a else (0, 0) for a in (0, 1)]
            values = sliding_window_view(np.pad(values, padding), side, axis).sum(-1)
        return values

    around = box(np.where(valid, image, 0.0)) / np.maximum(box(valid.astype(np.float64)), 1)
    return np.where(valid, image - around, 0.0)


def masked_correlation(
    a: np.ndarray, a_valid: np.ndarray, b: np.ndarray, b_valid: np.ndarray, reach: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlation of a(x + s) with b(x) over the pixels valid in both, and their number,
    for every shift s.

    Both (2 reach + 1, 2 reach + 1), shift 0 in the middle; NaN where one side is flat or fewer than
    3 pixels are left.
    """
    a, b = (
        np.where(
            ok, image - (image[ok].mean() if ok.any() else 0), 0.0
        )  # centred: less is lost to rounding
        for image, ok in ((a, a_valid), (b, b_valid))
    )
    size = [n + reach for n in a.shape]  # so that no shift up to reach wraps

    def cross(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        full = np.fft.irfft2(np.fft.rfft2(left, size) * np.fft.rfft2(right, size).conj(), size)
        return np.roll(full, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]

    in_a, in_b = a_valid.astype(np.float64), b_valid.astype(np.float64)
    count = np.rint(cross(in_a, in_b))
    sum_a, sum_b, number = cross(a, in_b), cross(in_a, b), np.maximum(count, 1)
    variance_a = cross(a * a, in_b) - sum_a**2 / number
    variance_b = cross(in_a, b * b) - sum_b**2 / number
    least_a, least_b = (FLAT * max((image**2).sum(), np.finfo(float).tiny) for image in (a, b))
    textured = (count > 2) & (variance_a > least_a) & (variance_b > least_b)
    product = cross(a, b) - sum_a * sum_b / number
    return np.divide(
        product,
        np.sqrt(np.abs(variance_a * variance_b)),
        where=textured,
        out=np.full(product.shape, np.nan),
    ), count


def judge(surface: np.ndarray) -> Registration:
    """The shift from correlations over shifts of a quarter cell, zero in the middle; without a
    clear peak, none."""
    middle, known = len(surface) // 2, np.isfinite(surface)
    if not known[middle, middle] or known.sum() < surface.size / 2:
        return Registration(None, "too few cells valid in both, or no texture")
    top = np.unravel_index(np.nanargmax(surface), surface.shape)
    rows, columns = np.indices(surface.shape)
    elsewhere = surface[known & (np.hypot(rows - top[0], columns - top[1]) > NEAR * STEPS)].max()
    best = float(surface[top])
    seen = {"zero": float(surface[middle, middle]), "best": best, "lead": float(best - elsewhere)}
    if best < LEAST_CORRELATION:
        return Registration(None, f"highest correlation below {LEAST_CORRELATION}", **seen)
    if seen["lead"] < LEAST_LEAD:
        return Registration(
            None, f"peak less than {LEAST_LEAD} above the correlations elsewhere", **seen
        )
    if min(top) == 0 or max(top) == len(surface) - 1:
        return Registration(None, f"peak at the greatest shift looked for, {REACH} cells", **seen)
    row, column = top
    down, right = (
        parabola(surface[row - 1 : row + 2, column]),
        parabola(surface[row, column - 1 : column + 2]),
    )
    return Registration(((row - middle + down) / STEPS, (column - middle + right) / STEPS), **seen)


def parabola(three: np.ndarray) -> float:
    """Where the parabola through three equally spaced values has its top, from the middle one, at
    most half a step.

    0 where a neighbour is unknown."""
    left, centre, right = map(float, three)
    bend = left - 2 * centre + right
    return min(max((left - right) / (2 * bend), -0.5), 0.5) if bend < 0 else 0.0  # NaN < 0 is false
