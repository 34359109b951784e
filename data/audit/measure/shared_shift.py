"""The shift that many small tiles of one source share.

None of them can tell alone, together they can.

At every shift the correlations of the tiles (Fisher's z, weighted by their degrees of freedom) are
averaged. The standard error comes from how the tiles differ, so that neighbouring cells that vary
together do not count as independent. A wrong reference system, or half a pixel too much, moves all
tiles of a source alike; a fault of one tile stays unseen here.
"""

from dataclasses import dataclass, field

import numpy as np

from data.audit.measure.masked_image import MaskedImage
from data.audit.measure.registration import (
    STEPS,
    masked_correlation,
    on_edge,
    peak_shift,
    quarter_means,
    spread_cells,
)

REACH = 2  # cells: farther, tiles of 6 cells share too few
SIDE = 2 * REACH * STEPS + 1
LEAST_TILES = 20
LEAST_T = 5.0  # standard errors of the mean correlation above zero, at the peak
LEAST_LEAD = 3.0  # standard errors of the difference to the highest mean elsewhere
NEAR = 1.0  # cells around the peak that belong to it
HIGHEST = 0.999  # correlation: a higher one counts as this, else Fisher's z would be infinite
FISHER_LOSS = 3  # the variance of Fisher's z over n pairs is 1 / (n - 3)
LEAST_ERROR = 1e-12  # of z, so that no division is by zero


@dataclass(frozen=True)
class SharedRegistration:
    """The shift of one source, or why there is none; see ``Registration``."""

    tiles: int
    shift: tuple[float, float] | None  # cells down, right; None: cannot tell
    reason: str
    stored_correlation: float | None = None  # mean correlation without a shift
    best_correlation: float | None = None  # mean correlation at the peak
    t: float | None = None  # the peak in standard errors


def _no_sums() -> np.ndarray:
    return np.zeros((5, SIDE, SIDE))


@dataclass
class Pool:
    """Sums over tiles at every shift: of the weights w, of w z, w^2, w^2 z and w^2 z^2."""

    tiles: int = 0
    sums: np.ndarray = field(default_factory=_no_sums)

    def add(self, fine: MaskedImage, coarse: MaskedImage) -> None:
        """Take in a tile; arguments as of ``registration.register``."""
        surface, count = masked_correlation(
            quarter_means(fine), spread_cells(coarse), REACH * STEPS
        )
        known = np.isfinite(surface) & (count > FISHER_LOSS)
        z = np.arctanh(np.clip(np.where(known, surface, 0), -HIGHEST, HIGHEST))
        w = np.where(known, count - FISHER_LOSS, 0)
        if known[SIDE // 2, SIDE // 2]:
            self.tiles += 1
        self.sums += (w, w * z, w**2, w**2 * z, w**2 * z**2)

    def merge(self, other: "Pool") -> None:
        """Take in the tiles of another part."""
        self.tiles += other.tiles
        self.sums = self.sums + other.sums

    def judge(self) -> SharedRegistration:
        """Find the shared shift."""
        if self.tiles < LEAST_TILES:
            return SharedRegistration(self.tiles, None, f"fewer than {LEAST_TILES} tiles")
        w, wz, w2, w2z, w2z2 = self.sums
        if not w.all():
            return SharedRegistration(self.tiles, None, "shifts without any pair of cells")
        mean = wz / w
        error = np.sqrt(np.maximum(w2z2 - 2 * mean * w2z + mean**2 * w2, 0)) / w
        row, column = np.unravel_index(mean.argmax(), mean.shape)
        peak = mean[row, column]
        peak_error = error[row, column]
        rows, columns = np.indices(mean.shape)
        apart = np.hypot(rows - row, columns - column) > NEAR * STEPS
        lead = (peak - mean) / np.maximum(np.hypot(error, peak_error), LEAST_ERROR)
        t = float(peak / max(peak_error, LEAST_ERROR))
        shift = None
        reason = ""
        if t < LEAST_T:
            reason = f"mean correlation below {LEAST_T:g} standard errors"
        elif lead[apart].min() < LEAST_LEAD:
            reason = f"peak less than {LEAST_LEAD:g} standard errors above the others"
        elif on_edge(row, column, SIDE):
            reason = f"peak at the greatest shift looked for, {REACH} cells"
        else:
            shift = peak_shift(mean, row, column)
        return SharedRegistration(
            self.tiles,
            shift,
            reason,
            stored_correlation=float(np.tanh(mean[SIDE // 2, SIDE // 2])),
            best_correlation=float(np.tanh(peak)),
            t=t,
        )
