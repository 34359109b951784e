"""Whether high-resolution pixels lie where the 10 m pixels say.

The answer for a tile is the shift with the highest correlation.

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

from data.audit.measure.masked_image import MaskedImage, enlarge

STEPS = 4  # averages along a cell
REACH = 4  # cells: greatest shift that is looked for
AROUND = 7  # cells: side of the square whose mean is subtracted
# Measured on Sentinel-2 pairs of two days and on unrelated textures; docs/audit.md has the rates.
LEAST_CELLS = 24  # side of a tile that is judged
LEAST_CORRELATION = 0.4  # at the peak
LEAST_LEAD = 0.15  # of the peak over the correlations elsewhere
NEAR = 1.5  # cells around the peak that belong to it
LEAST_OVERLAP = 0.4  # of the tile's cells valid in both images, at a shift
LEAST_PAIRS = 3  # of pixels valid in both, for a correlation
FLAT = 1e-6  # a part of the image with less than this share of its variance has no texture


@dataclass(frozen=True)
class Registration:
    """The shift of one tile, or why there is none."""

    # Cells down and right by which the high resolution is displaced. None: cannot tell.
    shift: tuple[float, float] | None
    reason: str = ""  # why there is no shift
    stored_correlation: float | None = None  # without a shift
    best_correlation: float | None = None  # at the peak
    lead: float | None = None  # of the peak over the highest correlation elsewhere

    @property
    def distance(self) -> float | None:
        """Length of the shift in cells."""
        if self.shift is None:
            return None
        return float(np.hypot(*self.shift))


def register(fine: MaskedImage, coarse: MaskedImage) -> Registration:
    """Find how far ``fine`` is displaced against ``coarse``.

    Args:
        fine: high-resolution grey with P pixels along a cell, P a multiple of 4.
        coarse: brightness with one pixel a cell.
    """
    cells = coarse.cells
    if cells < LEAST_CELLS:
        return Registration(None, f"{cells} x {cells} cells, fewer than {LEAST_CELLS} a side")
    means = quarter_means(fine)
    fine_texture = without_mean(means, AROUND * STEPS + 1)
    coarse_texture = spread_cells(without_mean(coarse, AROUND))
    surface, overlap = masked_correlation(fine_texture, coarse_texture, REACH * STEPS)
    surface[overlap < LEAST_OVERLAP * cells**2] = np.nan
    return judge(surface)


def quarter_means(fine: MaskedImage) -> MaskedImage:
    """Average over one cell at every quarter cell.

    Args:
        fine: (P*N, P*N) with a mask (N, N).

    Returns:
        Means and their validity, both (4N, 4N). Element 4 i + k is the mean over cell i moved by k
        quarters; the last three a side would reach over the edge. A mean is valid if all of it
        comes from valid cells.
    """
    side = STEPS * fine.cells
    block = len(fine.image) // side
    quarters = fine.image.reshape(side, block, side, block).mean((1, 3), dtype=np.float64)  # 4N 4N
    covered = enlarge(fine.valid, (side, side))
    mean = np.zeros((side, side))
    whole = np.zeros((side, side), bool)
    inside = slice(None, side - STEPS + 1)
    mean[inside, inside] = sliding_window_view(quarters, (STEPS, STEPS)).mean((2, 3))
    whole[inside, inside] = sliding_window_view(covered, (STEPS, STEPS)).all((2, 3))
    return MaskedImage(mean, whole)


def spread_cells(coarse: MaskedImage) -> MaskedImage:
    """Put the values of cells (N, N) on the grid of quarter cells (4N, 4N).

    Each value goes to its cell's first quarter, where ``quarter_means`` has the mean over the same
    cell. All else is invalid.
    """
    side = STEPS * coarse.cells
    spread = np.zeros((side, side))
    spread_valid = np.zeros((side, side), bool)
    spread[::STEPS, ::STEPS] = coarse.image
    spread_valid[::STEPS, ::STEPS] = coarse.valid
    return MaskedImage(spread, spread_valid)


def without_mean(image: MaskedImage, side: int) -> MaskedImage:
    """Subtract the mean over the valid pixels in a square around each pixel.

    Args:
        image: (n, n) with a mask of the same shape.
        side: pixels along the square, an odd number.

    Returns:
        The difference, 0 where invalid, with the same mask.
    """
    total = _box_sum(np.where(image.valid, image.image, 0.0), side)
    number = _box_sum(image.valid.astype(np.float64), side)
    around = total / np.maximum(number, 1)
    return MaskedImage(np.where(image.valid, image.image - around, 0.0), image.valid)


def _box_sum(values: np.ndarray, side: int) -> np.ndarray:
    """Sum over the square of odd ``side`` around each element."""
    half = side // 2
    padded = np.pad(values, ((half, half), (0, 0)))
    columns = sliding_window_view(padded, side, 0).sum(-1)
    padded = np.pad(columns, ((0, 0), (half, half)))
    return sliding_window_view(padded, side, 1).sum(-1)


def masked_correlation(a: MaskedImage, b: MaskedImage, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlate a(x + s) with b(x) over the pixels valid in both, for every shift s.

    Args:
        a: (n, n) with a mask of the same shape.
        b: as ``a``.
        reach: greatest shift in pixels.

    Returns:
        Pearson correlations and numbers of pixels, both (2 reach + 1, 2 reach + 1) with shift 0 in
        the middle. The correlation is NaN where one side is flat or fewer than 3 pixels are left.
    """
    centred_a = _centred(a)
    centred_b = _centred(b)
    size = [n + reach for n in centred_a.shape]  # so that no shift up to reach wraps

    def cross(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        full = np.fft.irfft2(np.fft.rfft2(left, size) * np.fft.rfft2(right, size).conj(), size)
        return np.roll(full, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]

    in_a = a.valid.astype(np.float64)
    in_b = b.valid.astype(np.float64)
    count = np.rint(cross(in_a, in_b))
    sum_a = cross(centred_a, in_b)
    sum_b = cross(in_a, centred_b)
    number = np.maximum(count, 1)
    variance_a = cross(centred_a * centred_a, in_b) - sum_a**2 / number
    variance_b = cross(in_a, centred_b * centred_b) - sum_b**2 / number
    textured = (
        (count >= LEAST_PAIRS)
        & (variance_a > _least_variance(centred_a))
        & (variance_b > _least_variance(centred_b))
    )
    product = cross(centred_a, centred_b) - sum_a * sum_b / number
    correlation = np.divide(
        product,
        np.sqrt(np.abs(variance_a * variance_b)),
        where=textured,
        out=np.full(product.shape, np.nan),
    )
    return correlation, count


def _centred(image: MaskedImage) -> np.ndarray:
    """Values without their mean, so that less is lost to rounding; 0 where invalid."""
    mean = 0.0
    if image.valid.any():
        mean = image.image[image.valid].mean()
    return np.where(image.valid, image.image - mean, 0.0)


def _least_variance(centred: np.ndarray) -> float:
    """The sum of squares below which a part of an image is flat."""
    return FLAT * max((centred**2).sum(), np.finfo(float).tiny)


def judge(surface: np.ndarray) -> Registration:
    """Find the shift in correlations over shifts of a quarter cell, zero in the middle.

    Without one clear peak there is no shift.
    """
    middle = len(surface) // 2
    known = np.isfinite(surface)
    if not known[middle, middle] or known.sum() < surface.size / 2:
        return Registration(None, "too few cells valid in both, or no texture")
    row, column = np.unravel_index(np.nanargmax(surface), surface.shape)
    rows, columns = np.indices(surface.shape)
    apart = np.hypot(rows - row, columns - column) > NEAR * STEPS
    best = float(surface[row, column])
    lead = float(best - surface[known & apart].max())
    shift = None
    reason = ""
    if best < LEAST_CORRELATION:
        reason = f"highest correlation below {LEAST_CORRELATION}"
    elif lead < LEAST_LEAD:
        reason = f"peak less than {LEAST_LEAD} above the correlations elsewhere"
    elif on_edge(row, column, len(surface)):
        reason = f"peak at the greatest shift looked for, {REACH} cells"
    else:
        shift = peak_shift(surface, row, column)
    return Registration(
        shift,
        reason,
        stored_correlation=float(surface[middle, middle]),
        best_correlation=best,
        lead=lead,
    )


def on_edge(row: np.intp, column: np.intp, side: int) -> bool:
    """Whether an element of a square array lies on its edge."""
    return min(row, column) == 0 or max(row, column) == side - 1


def peak_shift(surface: np.ndarray, row: np.intp, column: np.intp) -> tuple[float, float]:
    """Cells down and right from the middle of a surface of quarter cells to its peak.

    A parabola through the neighbours of ``surface[row, column]`` gives the part below a quarter.
    """
    middle = len(surface) // 2
    down = parabola(surface[row - 1 : row + 2, column])
    right = parabola(surface[row, column - 1 : column + 2])
    return (float(row) - middle + down) / STEPS, (float(column) - middle + right) / STEPS


def parabola(values: np.ndarray) -> float:
    """Where the parabola through three equally spaced values has its top.

    Counted in steps from the middle value, at most half a step; 0 where a neighbour is NaN.
    """
    left, centre, right = map(float, values)
    bend = left - 2 * centre + right
    if not bend < 0:  # also where bend is NaN
        return 0.0
    return min(max((left - right) / (2 * bend), -0.5), 0.5)
