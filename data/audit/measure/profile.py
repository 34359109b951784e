"""What one sensor of one tile looks like, in a few numbers."""

from dataclasses import dataclass, field

import numpy as np

from data.tiles.modalities import MODALITIES
from data.tiles.sensor import BYTE

SAMPLED = 1 << 17  # pixels of a tile that are kept until its percentiles are known
LEAST_SAMPLED = 64  # pixels of a frame
LOW = 2  # percentiles
HIGH = 98
BLACK = 3  # byte: JPEG leaves up to this of a black pixel
JUMP = 128  # byte: neighbours farther apart are cut by an edge, or by numbers that wrapped around


@dataclass(frozen=True)
class Profile:
    """Numbers of the valid pixels, in the archive's unit.

    Attributes:
        pixels: how many are valid.
        valid_share: of all pixels.
        empty_share: of the valid pixels, those that show what stands for no observation: the
            sensor's number for it in a band, or black where the sensor has no such number.
        low: C, 2nd percentile of each band.
        median: C.
        high: C, 98th percentile.
        std: C, standard deviation.
        jumps: share of neighbouring pixels more than half the range of a byte apart.
        day: middle of the frames' dates, as an ordinal.
    """

    pixels: int
    valid_share: float
    empty_share: float
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray
    std: np.ndarray
    jumps: float
    day: float


def _no_samples() -> list[np.ndarray]:
    return []


@dataclass
class ProfileBuilder:
    """Takes in the frames of one sensor, some at a time.

    Percentiles are of at most ``SAMPLED`` evenly spread pixels, so that a long series needs no more
    memory than a short one.
    """

    modality: str
    frames: int  # of the whole series
    samples: list[np.ndarray] = field(default_factory=_no_samples)  # C n each
    pixels: int = 0
    valid: int = 0
    empty: int = 0
    neighbours: int = 0
    jumps: int = 0

    def add(self, images: np.ndarray, valid: np.ndarray) -> None:
        """Take in frames.

        Args:
            images: T C H W in the archive's unit.
            valid: T H W bool.
        """
        self.pixels += valid.size
        most = max(SAMPLED // self.frames, LEAST_SAMPLED)
        for image, mask in zip(images, valid):
            values = image[:, mask]  # C n
            self.valid += values.shape[1]
            self.empty += int(_empty(values, self.modality).sum())
            self.samples.append(values[:, :: max(1, -(-values.shape[1] // most))])
        if MODALITIES[self.modality].unit == BYTE:
            across = np.abs(np.diff(images.astype(np.int16), axis=-1))  # T C H W-1
            both = valid[..., 1:] & valid[..., :-1]  # T H W-1
            self.neighbours += int(both.sum()) * images.shape[1]
            self.jumps += int(((across > JUMP) & both[:, None]).sum())

    def profile(self, days: list[int]) -> Profile:
        """The numbers of all frames, whose dates are ``days`` (ordinals)."""
        bands = len(MODALITIES[self.modality].bands)
        values = np.zeros((bands, 1))
        if self.valid:
            values = np.concatenate(self.samples, axis=1).astype(np.float64)  # C n
        low, median, high = np.percentile(values, (LOW, 50, HIGH), axis=1)
        return Profile(
            pixels=self.valid,
            valid_share=self.valid / self.pixels,
            empty_share=self.empty / max(self.valid, 1),
            low=low,
            median=median,
            high=high,
            std=values.std(axis=1),
            jumps=self.jumps / max(self.neighbours, 1),
            day=float(np.median(days)),
        )


def _empty(values: np.ndarray, modality: str) -> np.ndarray:
    """Which valid pixels (C, n) look as if nothing had been observed: n bool."""
    sensor = MODALITIES[modality]
    if sensor.nodata is not None:
        return np.asarray((values == sensor.nodata).any(axis=0))
    if sensor.unit == BYTE:
        return np.asarray((values <= BLACK).all(axis=0))
    return np.zeros(values.shape[1], bool)
