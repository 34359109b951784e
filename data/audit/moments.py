"""Count, mean, deviation, least and greatest of many numbers by band, in float64, merged without a
second pass."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Of C bands. Parts merge by the pairwise formula of Chan, Golub and LeVeque (1979): no sum of
    squares is ever formed, so nothing cancels."""

    count: int
    mean: np.ndarray  # C float64
    squares: np.ndarray  # C float64: sum of squared deviations from the mean
    low: np.ndarray  # C float64
    high: np.ndarray  # C float64
    at_low: np.ndarray  # C int64: how many are the least one; many: clipped
    at_high: np.ndarray  # C int64

    @classmethod
    def empty(cls, bands: int) -> "Moments":
        """Of no number at all."""
        return cls(
            0,
            np.zeros(bands),
            np.zeros(bands),
            np.full(bands, np.inf),
            np.full(bands, -np.inf),
            np.zeros(bands, np.int64),
            np.zeros(bands, np.int64),
        )

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Moments":
        """Of pixels (C, n), whatever their type."""
        if not pixels.shape[1]:
            return cls.empty(len(pixels))
        pixels = pixels.astype(np.float64)
        mean, low, high = pixels.mean(1), pixels.min(1), pixels.max(1)
        return cls(
            pixels.shape[1],
            mean,
            ((pixels - mean[:, None]) ** 2).sum(1),
            low,
            high,
            (pixels == low[:, None]).sum(1),
            (pixels == high[:, None]).sum(1),
        )

    def merge(self, other: "Moments") -> None:
        """Take in another part."""
        if not other.count:
            return
        count = self.count + other.count
        gap = other.mean - self.mean
        self.squares = self.squares + other.squares + gap**2 * (self.count / count * other.count)
        self.mean = self.mean + gap * (other.count / count)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.at_low = self.at_low * (self.low == low) + other.at_low * (other.low == low)
        self.at_high = self.at_high * (self.high == high) + other.at_high * (other.high == high)
        self.low, self.high = low, high
        self.count = count

    @property
    def std(self) -> np.ndarray:
        """Deviation over all numbers (divided by their count), as numpy.std."""
        return np.sqrt(self.squares / max(self.count, 1))
