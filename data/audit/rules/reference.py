"""The tiles that a tile is compared with: a sample of each source, and all rows on the disk.

The first pass over the tiles writes one row a sensor and tile to a temporary file, and keeps of
every source the rows whose keys have the smallest hashes: a random choice that is the same in any
order and for any number of processes. The second pass reads the rows again, not the tiles.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush, heapreplace

import numpy as np

from data.audit.measure.profile import Profile
from data.audit.rules.spilled import SpilledRows

OF_SOURCE = 128  # rows kept of each source and sensor
OF_ALL = 512  # rows kept of all tiles of a sensor
CHUNK = 1024  # rows of a file that are in memory at once


@dataclass(frozen=True)
class Place:
    """Which tile a profile belongs to.

    Attributes:
        sample: its number.
        source: number of its source.
        files: hash of the names of its files: tiles cut from one scene share it.
        key_hash: hash of its key.
    """

    sample: int
    source: int
    files: int
    key_hash: int


def row_type(bands: int) -> np.dtype:
    """The columns of a row of a sensor."""
    return np.dtype(
        [
            ("sample", "<i8"),
            ("source", "<i4"),
            ("files", "<i8"),
            ("day", "<f4"),
            ("jumps", "<f4"),
            ("low", "<f4", (bands,)),
            ("median", "<f4", (bands,)),
        ]
    )


class Smallest:
    """The rows with the smallest hashes.

    Args:
        most: how many to keep.
    """

    def __init__(self, most: int):
        self.most = most
        self._heap: list[tuple[int, int, bytes]] = []  # -hash, -sample, row

    def add(self, place: Place, row: bytes) -> None:
        """Keep a row if its hash is small enough."""
        item = (-place.key_hash, -place.sample, row)
        if len(self._heap) < self.most:
            heappush(self._heap, item)
        elif item > self._heap[0]:
            heapreplace(self._heap, item)

    def rows(self, dtype: np.dtype) -> np.ndarray:
        """The rows kept, in the order of their samples."""
        rows = np.frombuffer(b"".join(row for *_, row in self._heap), dtype)
        return np.sort(rows, order="sample")


@dataclass
class Rows:
    """All rows of one sensor."""

    spilled: SpilledRows
    of_all: Smallest = field(default_factory=lambda: Smallest(OF_ALL))
    of_source: dict[int, Smallest] = field(default_factory=dict)

    @classmethod
    def of_bands(cls, bands: int) -> "Rows":
        """No rows yet, of a sensor with so many bands."""
        return cls(SpilledRows(row_type(bands)))

    @property
    def dtype(self) -> np.dtype:
        """The columns of a row."""
        return self.spilled.dtype

    def add(self, place: Place, profile: Profile) -> None:
        """Append the row of a tile."""
        row = np.zeros((), self.dtype)
        row["sample"] = place.sample
        row["source"] = place.source
        row["files"] = place.files
        row["day"] = profile.day
        row["jumps"] = profile.jumps
        row["low"] = profile.low
        row["median"] = profile.median
        data = row.tobytes()
        self.spilled.append(data)
        self.of_all.add(place, data)
        self.of_source.setdefault(place.source, Smallest(OF_SOURCE)).add(place, data)

    def chunks(self) -> Iterator[np.ndarray]:
        """All rows from the beginning, some at a time."""
        return self.spilled.chunks(CHUNK)
