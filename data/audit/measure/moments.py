"""Count, mean, deviation, least and greatest of many numbers by band.

They are float64 and merge without a second pass over the numbers.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Moments of C bands.

    Parts merge by the pairwise formula of Chan, Golub and LeVeque (1979): no sum of squares is ever
    formed, so nothing cancels.
    """

    count: int
    mean: np.ndarray  # C float64
    squares: np.ndarray  # C float64: sum of squared deviations from the mean
    low: np.ndarray  # C float64
    high: np.ndarray  # C float64
    at_low: np.ndarray  # C int64: how many numbers equal the least one; many: clipped
    at_high: np.ndarray  # C int64

    @classmethod
    def empty(cls, bands: int) -> "Moments":
        """Moments of no number."""
        return cls(
            count=0,
            mean=np.zeros(bands),
            squares=np.zeros(bands),
            low=np.full(bands, np.inf),
            high=np.full(bands, -np.inf),
            at_low=np.zeros(bands, np.int64),
            at_high=np.zeros(bands, np.int64),
        )

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Moments":
        """Moments of pixels (C, n) of any type."""
        if not pixels.shape[1]:
            return cls.empty(len(pixels))
        pixels = pixels.astype(np.float64)
        mean = pixels.mean(1)  # C
        low = pixels.min(1)  # C
        high = pixels.max(1)  # C
        return cls(
            count=pixels.shape[1],
            mean=mean,
            squares=((pixels - mean[:, None]) ** 2).sum(1),
            low=low,
            high=high,
            at_low=(pixels == low[:, None]).sum(1),
            at_high=(pixels == high[:, None]).sum(1),
        )

    def merge(self, other: "Moments") -> None:
        """Take in the moments of another part."""
        if not other.count:
            return
        count = self.count + other.count
        gap = other.mean - self.mean
        self.squares = self.squares + other.squares + gap**2 * (self.count / count * other.count)
        self.mean = self.mean + gap * (other.count / count)
        low = np.minimum(self.low, other.low)
        high = np.maximum(self.high, other.high)
        self.at_low = self.at_low * (self.low == low) + other.at_low * (other.low == low)
        self.at_high = self.at_high * (self.high == high) + other.at_high * (other.high == high)
        self.low = low
        self.high = high
        self.count = count

    @property
    def std(self) -> np.ndarray:
        """Standard deviation, divided by the count as in ``numpy.std``: (C,)."""
        return np.sqrt(self.squares / max(self.count, 1))
