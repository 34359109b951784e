"""Histograms of stored numbers by band.

The bins follow from the registry of sensors alone, so that any two histograms merge.
"""

import math
from dataclasses import dataclass

import numpy as np

from data.tiles.modalities import MODALITIES, Modality

BINS = 2048  # at most; one more below and one above take the rest
SPAN = 8.0  # registry deviations on both sides of the registry means


@dataclass(frozen=True)
class Bins:
    """``number`` bins of equal width from ``start``."""

    start: float
    step: float
    number: int

    @classmethod
    def of(cls, sensor: Modality) -> "Bins":
        """Choose the bins of a sensor.

        They reach ``SPAN`` deviations from the means, but no farther than the stored type; of a
        sensor that nobody has measured as far as 16 bits do. Where stored numbers are whole
        multiples of a step, so are the widths of the bins, and no number lies on an edge: no bin
        is favoured.
        """
        low, high = _reach(sensor)
        unit = (high - low) / BINS
        if np.issubdtype(sensor.dtype, np.integer):
            low = max(low, np.iinfo(sensor.dtype).min)
            high = min(high, np.iinfo(sensor.dtype).max)
            unit = 1.0
        if sensor.step:
            unit = sensor.step
        first = math.floor(low / unit)
        last = math.ceil(high / unit)
        joined = math.ceil((last - first + 1) / BINS)  # units in a bin
        number = math.ceil((last - first + 1) / joined)
        return cls(start=(first - 0.5) * unit, step=joined * unit, number=number)

    @property
    def edges(self) -> np.ndarray:
        """Lower edges and the last upper one: (number + 1,)."""
        return self.start + self.step * np.arange(self.number + 1)


def _reach(sensor: Modality) -> tuple[float, float]:
    """The least and the greatest number that bins should tell apart, in the archive's unit."""
    if not sensor.is_measured:
        unit = sensor.step or 1.0
        low = np.iinfo(np.int16).min * unit
        high = np.iinfo(np.int16).max * unit
        if np.issubdtype(sensor.dtype, np.integer):
            low = np.iinfo(sensor.dtype).min
            high = np.iinfo(sensor.dtype).max
        return low, high
    mean = np.array(sensor.mean) * sensor.scale
    std = np.array(sensor.std) * sensor.scale
    return float((mean - SPAN * std).min()), float((mean + SPAN * std).max())


@dataclass
class Histogram:
    """Counts of C bands."""

    bins: Bins
    counts: np.ndarray  # C number+2 int64; the first column is below all bins, the last above

    @classmethod
    def empty(cls, modality: str) -> "Histogram":
        """An empty histogram."""
        sensor = MODALITIES[modality]
        bins = Bins.of(sensor)
        return cls(bins, np.zeros((len(sensor.bands), bins.number + 2), np.int64))

    def add(self, pixels: np.ndarray) -> None:
        """Count finite pixels (C, n) of stored numbers."""
        for counts, band in zip(self.counts, pixels):
            place = np.floor((band.astype(np.float64) - self.bins.start) / self.bins.step)
            place = np.clip(place, -1, self.bins.number).astype(np.int64) + 1
            counts += np.bincount(place, minlength=len(counts))

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another part."""
        self.counts = self.counts + other.counts

    def percentile(self, percent: float) -> np.ndarray:
        """A percentile of each band: (C,), right to one step.

        Numbers are taken as evenly spread inside a bin. A percentile outside all bins is the
        nearest edge; without pixels it is NaN.
        """
        percentiles = np.full(len(self.counts), np.nan)
        for band, counts in enumerate(self.counts):
            below = np.cumsum(counts)  # after the bin under the first edge, after bin 0, ...
            if below[-1]:
                rank = percent / 100 * below[-1]
                percentiles[band] = np.interp(rank, below[:-1], self.bins.edges)
        return percentiles
