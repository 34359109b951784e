"""Everything measured on the pixels of all samples: moments, histograms, classes, shared shifts."""

from dataclasses import dataclass, field

import numpy as np

from data.audit.measure.histogram import Histogram
from data.audit.measure.moments import Moments
from data.audit.measure.shared_shift import Pool
from data.tiles.modalities import MODALITIES

LABEL_VALUES = 256  # class indices are bytes; 255 is unlabelled


def _empty_moments() -> dict[str, Moments]:
    return {name: Moments.empty(len(sensor.bands)) for name, sensor in MODALITIES.items()}


def _empty_histograms() -> dict[str, Histogram]:
    return {name: Histogram.empty(name) for name in MODALITIES}


def _no_labels() -> np.ndarray:
    return np.zeros(LABEL_VALUES, np.int64)


@dataclass
class Pixels:
    """Measurements that merge in any grouping; the last bits of the moments follow the order."""

    moments: dict[str, Moments] = field(default_factory=_empty_moments)
    histograms: dict[str, Histogram] = field(default_factory=_empty_histograms)
    # attribution -> the small tiles of this source that have hr and ms
    pools: dict[str, Pool] = field(default_factory=dict)
    classes: np.ndarray = field(default_factory=_no_labels)  # class index -> label pixels

    def add(self, modality: str, pixels: np.ndarray) -> None:
        """Measure valid pixels (C, n) of stored numbers."""
        self.moments[modality].merge(Moments.of(pixels))
        self.histograms[modality].add(pixels)

    def merge(self, other: "Pixels") -> None:
        """Take in the measurements of another part."""
        for name, moments in other.moments.items():
            self.moments.setdefault(name, Moments.empty(len(moments.mean))).merge(moments)
            self.histograms.setdefault(name, Histogram.empty(name)).merge(other.histograms[name])
        for source, pool in other.pools.items():
            self.pools.setdefault(source, Pool()).merge(pool)
        self.classes = self.classes + other.classes
