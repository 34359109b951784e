"""One co-registered tile in memory: what the archive stores and the shards pack."""

from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np

HR_PIXELS = 32  # high-resolution pixels along a 10 m cell: 0.3125 m
LABEL_PIXELS = 8  # label pixels along a 10 m cell: 1.25 m
UNLABELLED = 255
DAYS = 365  # entries of the model's day table


@dataclass
class Tile:
    """A square of ``cells`` x ``cells`` ground cells of 10 m. A modality that the place lacks is
    not in the dicts."""

    key: str
    cells: int
    crs: str  # projected, metres; "EPSG:n" or WKT
    transform: tuple[
        float, float, float, float, float, float
    ]  # affine of the 10 m grid: a, b, c, d, e, f
    lon: float  # centre, degrees
    lat: float
    # hr (3, 32n, 32n) uint8; ms (T, 10, n, n) uint16 reflectance x 1e4; sar (T, 2, n, n) float32
    # dB; labels (8n, 8n) uint8, 255 = unlabelled
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    valid: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # hr (1, n, n), ms (T, n, n), sar (T, n, n) bool
    dates: dict[str, list[str]] = field(
        default_factory=dict
    )  # modality -> ISO day of each frame, ascending
    source: str = ""
    licence: str = ""
    attribution: str = ""

    @property
    def modalities(self) -> list[str]:
        """The sensors this tile has, in registry order."""
        return [name for name in ("hr", "ms", "sar") if name in self.arrays]


def day_index(day: str, shift: int = 0) -> int:
    """Day of the year - 1, in 0..364, of an ISO day moved by ``shift`` days.

    A move crosses the new year as the calendar does; the 366th day of a leap year counts as the
    365th."""
    moved = date.fromisoformat(day) + timedelta(days=shift)
    return min(moved.timetuple().tm_yday, DAYS) - 1
