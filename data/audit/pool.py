"""The shift that many small tiles of one source share: alone none of them can tell, together they
can.

At every shift the correlations of the tiles (Fisher's z, weighted by their degrees of freedom) are
averaged. The standard error comes from how the tiles differ, so that neighbouring cells that vary
together deceive nobody. A wrong reference system, or half a pixel too much, moves all tiles of a
source alike; a fault of one tile stays unseen here.
"""

from dataclasses import dataclass, field

import numpy as np

from data.audit.registration import STEPS, masked_correlation, parabola, quarter_means, spread_cells

REACH = 2  # cells: farther, tiles of 6 cells share too few
SIDE = 2 * REACH * STEPS + 1
LEAST_TILES = 20
LEAST_T = 5.0  # standard errors of the mean correlation above zero, at the peak
LEAST_LEAD = 3.0  # standard errors of the difference to the highest mean elsewhere
NEAR = 1.0  # cells around the peak that belong to it
MOST = 0.999  # correlation: a higher one counts as this, Fisher's z would be infinite


@dataclass(frozen=True)
class Shared:
    """The answer for one source; the same fields as of a single tile."""

    tiles: int
    shift: tuple[float, float] | None  # cells down, right; None: cannot tell
    reason: str
    zero: float | None = None  # mean correlation as stored
    best: float | None = None  # at the peak
    t: float | None = None  # the peak in standard errors


@dataclass
class Pool:
    """Sums over tiles at every shift: of the weights w, of w z, w^2, w^2 z and w^2 z^2."""

    tiles: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros((5, SIDE, SIDE)))

    def add(
        self, fine: np.ndarray, fine_valid: np.ndarray, coarse: np.ndarray, coarse_valid: np.ndarray
    ) -> None:
        """Take in a tile; arguments as of ``registration.register``."""
        fine, fine_valid = quarter_means(fine, fine_valid)
        surface, count = masked_correlation(
            fine, fine_valid, *spread_cells(coarse, coarse_valid), REACH * STEPS
        )
        known = np.isfinite(surface) & (count > 3)
        z = np.arctanh(np.clip(np.where(known, surface, 0), -MOST, MOST))
        w = np.where(known, count - 3, 0)
        self.tiles += bool(known[SIDE // 2, SIDE // 2])
        self.sums += (w, w * z, w**2, w**2 * z, w**2 * z**2)

    def merge(self, other: "Pool") -> None:
        """Take in another part."""
        self.tiles += other.tiles
        self.sums = self.sums + other.sums

    def judge(self) -> Shared:
        """The shared shift, or why there is none."""
        if self.tiles < LEAST_TILES:
            return Shared(self.tiles, None, f"fewer than {LEAST_TILES} tiles")
        w, wz, w2, w2z, w2z2 = self.sums
        if not w.all():
            return Shared(self.tiles, None, "shifts without any pair of cells")
        mean = wz / w
        error = np.sqrt(np.maximum(w2z2 - 2 * mean * w2z + mean**2 * w2, 0)) / w
        row, column = top = np.unravel_index(mean.argmax(), mean.shape)
        rows, columns = np.indices(mean.shape)
        apart = np.hypot(rows - row, columns - column) > NEAR * STEPS
        lead = ((mean[top] - mean) / np.maximum(np.hypot(error, error[top]), 1e-12))[apart].min()
        t, middle = float(mean[top] / max(error[top], 1e-12)), SIDE // 2
        seen = {
            "zero": float(np.tanh(mean[middle, middle])),
            "best": float(np.tanh(mean[top])),
            "t": t,
        }
        if t < LEAST_T:
            return Shared(
                self.tiles, None, f"mean correlation below {LEAST_T:g} standard errors", **seen
            )
        if lead < LEAST_LEAD:
            return Shared(
                self.tiles,
                None,
                f"peak less than {LEAST_LEAD:g} standard errors above the others",
                **seen,
            )
        if min(top) == 0 or max(top) == SIDE - 1:
            return Shared(
                self.tiles, None, f"peak at the greatest shift looked for, {REACH} cells", **seen
            )
        down, right = (
            parabola(mean[row - 1 : row + 2, column]),
            parabola(mean[row, column - 1 : column + 2]),
        )
        return Shared(
            self.tiles,
            ((float(row) - middle + down) / STEPS, (float(column) - middle + right) / STEPS),
            "",
            **seen,
        )
