"""Histograms of stored numbers by band, with bins that follow from the registry alone, so that any
two merge."""

import math
from dataclasses import dataclass

import numpy as np

from data.tiles.modalities import MODALITIES, Modality

BINS = 2048  # at most; below and above it two more bins take the rest
SPAN = 8.0  # registry deviations on both sides of the registry means


@dataclass(frozen=True)
class Bins:
    """``number`` bins of equal width from ``start``."""

    start: float
    step: float
    number: int

    @classmethod
    def of(cls, sensor: Modality) -> "Bins":
        """Bins that reach ``SPAN`` deviations from the means, no farther than the stored type.
        Where numbers are whole multiples of a step, so are the bins' widths, and no number lies on
        an edge: no bin is favoured."""
        mean, std = np.array(sensor.mean) * sensor.scale, np.array(sensor.std) * sensor.scale
        low, high = float((mean - SPAN * std).min()), float((mean + SPAN * std).max())
        whole = np.issubdtype(sensor.dtype, np.integer)
        if whole:
            low, high = max(low, np.iinfo(sensor.dtype).min), min(high, np.iinfo(sensor.dtype).max)
        unit = sensor.step or (1.0 if whole else (high - low) / BINS)
        first, last = math.floor(low / unit), math.ceil(high / unit)
        joined = math.ceil((last - first + 1) / BINS)
        return cls((first - 0.5) * unit, joined * unit, math.ceil((last - first + 1) / joined))

    @property
    def edges(self) -> np.ndarray:
        """Lower edges and the last upper one: number + 1."""
        return self.start + self.step * np.arange(self.number + 1)


@dataclass
class Histogram:
    """Counts (C, number + 2) int64: the first column is below all bins, the last above."""

    bins: Bins
    counts: np.ndarray

    @classmethod
    def empty(cls, modality: str) -> "Histogram":
        """Of no pixel."""
        bins = Bins.of(MODALITIES[modality])
        return cls(bins, np.zeros((len(MODALITIES[modality].bands), bins.number + 2), np.int64))

    def add(self, pixels: np.ndarray) -> None:
        """Count finite pixels (C, n) of stored numbers."""
        for counts, band in zip(self.counts, pixels):
            place = np.floor((band.astype(np.float64) - self.bins.start) / self.bins.step)
            place = np.clip(place, -1, self.bins.number).astype(np.int64) + 1
            counts += np.bincount(place, minlength=len(counts))

    def merge(self, other: "Histogram") -> None:
        """Take in another part."""
        self.counts = self.counts + other.counts

    def percentile(self, percent: float) -> np.ndarray:
        """By band (C,), linear inside a bin, so right to one step; NaN without pixels. What lies
        outside all bins gives the nearest edge."""
        found, edges = [], self.bins.edges
        for counts in self.counts:
            below = np.cumsum(counts)  # after the bin under the first edge, after bin 0, ...
            wanted = percent / 100 * below[-1]
            found.append(np.interp(wanted, below[:-1], edges) if below[-1] else np.nan)
        return np.array(found)
