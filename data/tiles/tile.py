"""One co-registered tile in memory: what the archive stores and the shards pack."""

from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np

from data.tiles.modalities import MODALITIES

LABEL_PIXELS = 8  # label pixels along a 10 m cell: 1.25 m
UNLABELLED = 255
DAYS = 365  # entries of the model's day table


@dataclass
class Tile:
    """A square of N x N ground cells of 10 m. A sensor that the place lacks is not in the dicts.

    Attributes:
        key: unique name; letters, digits, "_" and "-".
        cells: N.
        crs: projected, in metres; "EPSG:n" or WKT. Empty: nobody knows where the tile lies.
        transform: affine map of the 10 m grid: a, b, c, d, e, f. Without a place: metres around the
            middle of the tile.
        lon: of the centre, degrees; None without a place.
        lat: of the centre, degrees; None without a place.
        arrays: sensor -> numbers in the archive's unit and type. hr: 3 32N 32N; a series: T C N N.
            of own sensors T C pN pN with p pixels a cell. "labels": 8N 8N uint8, 255 is
            unlabelled.
        valid: sensor -> T N N bool; T is 1 for hr.
        dates: sensor -> ISO day of each frame, ascending.
        source: names of the files that it was made from.
        licence: of the data.
        attribution: whom to name.
        split: what it is for, see ``data/tiles/splits.py``; empty: nobody has said it.
    """

    key: str
    cells: int
    crs: str
    transform: tuple[float, float, float, float, float, float]
    lon: float | None
    lat: float | None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    valid: dict[str, np.ndarray] = field(default_factory=dict)
    dates: dict[str, list[str]] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    attribution: str = ""
    split: str = ""

    @property
    def modalities(self) -> list[str]:
        """The sensors that this tile has, in the order of the registry."""
        return [name for name in MODALITIES if name in self.arrays]


def day_index(day: str, shift: int = 0) -> int:
    """Day of the year - 1, in 0..364, of an ISO day moved by ``shift`` days.

    A move crosses the new year as the calendar does. The 366th day of a leap year counts as the
    365th.
    """
    moved = date.fromisoformat(day) + timedelta(days=shift)
    return min(moved.timetuple().tm_yday, DAYS) - 1
