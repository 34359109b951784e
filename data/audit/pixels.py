"""Everything measured on the pixels themselves, over all samples: moments, histograms, classes,
shared shifts."""

from dataclasses import dataclass, field

import numpy as np

from data.audit.histogram import Histogram
from data.audit.moments import Moments
from data.audit.pool import Pool
from data.tiles.modalities import MODALITIES


@dataclass
class Pixels:
    """Parts of a dataset that merge in any grouping; the last bits of the moments follow the order."""

    moments: dict[str, Moments] = field(
        default_factory=lambda: {
            name: Moments.empty(len(sensor.bands)) for name, sensor in MODALITIES.items()
        }
    )
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {name: Histogram.empty(name) for name in MODALITIES}
    )
    pools: dict[str, Pool] = field(
        default_factory=dict
    )  # attribution -> its small tiles with hr and ms
    classes: np.ndarray = field(
        default_factory=lambda: np.zeros(256, np.int64)
    )  # label pixels by index, 255: none

    def add(self, modality: str, pixels: np.ndarray) -> None:
        """Take in valid pixels (C, n), stored numbers."""
        self.moments[modality].merge(Moments.of(pixels))
        self.histograms[modality].add(pixels)

    def merge(self, other: "Pixels") -> None:
        """Take in another part."""
        for name in self.moments:
            self.moments[name].merge(other.moments[name])
            self.histograms[name].merge(other.histograms[name])
        for source, pool in other.pools.items():
            self.pools.setdefault(source, Pool()).merge(pool)
        self.classes = self.classes + other.classes
