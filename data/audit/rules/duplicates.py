"""Pairs of samples with the same key, bytes or picture, and of tiles that overlap.

Places are compared in metres on the sphere. Samples are sorted by rows of latitude first, so that
no sample is compared with all others. Of many samples only a part is in memory at a time: those
whose hashes leave the same remainder, or those of one band of latitude.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import pairwise

import numpy as np

from data.audit.measure.fingerprint import hamming_distance
from data.audit.rules.spilled import SpilledRows

DEGREE = 111_195.0  # metres of a degree of latitude on the sphere of 6371 km
CELL = 10.0  # metres
SAME_PLACE = 1.0  # cells: greatest distance of two centres, down and across
SAME_PICTURE = 6  # bits of 63: greatest difference of two hashes of one picture
NO_HASH = -1  # of a sample without a picture hash
PART = 1 << 20  # samples that are compared at a time
BLOCK = 65_536  # samples whose neighbours are looked up at a time
NEXT_ROW = 1000.0  # degrees between two rows of latitude on the line that holds them all
MARGIN = 1.01  # the next row may be nearer to the pole, where a degree of longitude is shorter
WIDEST = 179.0  # degrees: so no pair is near in both directions around the Earth

SAMPLE_ROW = np.dtype(
    [
        ("sample", "<i8"),
        ("lon", "<f8"),  # degrees; NaN: nobody knows the place
        ("lat", "<f8"),
        ("cells", "<i4"),
        ("key_hash", "<i8"),
        ("content_hash", "<i8"),
        # A sample with a hash of its high resolution has none of its Sentinel-2.
        ("hr_hash", "<i8"),
        ("ms_hash", "<i8"),
    ]
)


@dataclass(frozen=True)
class Pairs:
    """The number of pairs, and the first of them by the numbers of their samples."""

    count: int
    first: list[tuple[int, int]]


@dataclass(frozen=True)
class Neighbours:
    """Pairs of samples that lie near each other, n of them."""

    first: np.ndarray  # n, the lower place of the two samples
    second: np.ndarray  # n
    across: np.ndarray  # n, metres between the centres from west to east
    down: np.ndarray  # n, metres between the centres from north to south


def equal_values(rows: SpilledRows, column: str, *, listed: int, most: int = PART) -> Pairs:
    """Find neighbours among equal values: n equal samples are n - 1 pairs.

    Args:
        rows: a row for each sample.
        column: the name of the values, which are hashes.
        listed: number of pairs to name.
        most: how many rows may be in memory at a time, about.
    """
    parts = -(-len(rows) // most)

    def matches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in range(parts):
            chosen = rows.select(["sample", column], _leaves(column, parts, part))
            chosen = chosen[np.argsort(chosen[column], kind="stable")]
            same = chosen[column][1:] == chosen[column][:-1]
            yield chosen["sample"][:-1][same], chosen["sample"][1:][same]

    return _collect(matches(), listed)


def _leaves(column: str, parts: int, remainder: int) -> Callable[[np.ndarray], np.ndarray]:
    """Which rows have hashes that leave a remainder."""
    return lambda rows: rows[column] % parts == remainder


def near(lon: np.ndarray, lat: np.ndarray, reach: float) -> Iterator[Neighbours]:
    """Find pairs whose centres lie at most ``reach`` metres apart, down and across.

    Each pair comes once, also one on both sides of the 180th meridian. Samples whose place is NaN
    have none.

    Args:
        lon: longitude of each sample in degrees.
        lat: latitude of each sample in degrees.
        reach: greatest distance in metres, and the height of a row.
    """
    known = np.flatnonzero(np.isfinite(lat))
    lat = lat[known]
    lon = (lon[known] + 180) % 360  # from the meridian on
    width = MARGIN * reach / DEGREE / np.maximum(np.cos(np.radians(lat)), 1e-3)  # degrees
    width = np.minimum(width, WIDEST)
    # What lies just behind the meridian lies once more at the end of each row.
    again = np.flatnonzero(lon < MARGIN * width)
    lon = np.concatenate([lon, lon[again] + 360])
    line = np.floor((np.concatenate([lat, lat[again]]) + 90) * DEGREE / reach) * NEXT_ROW + lon
    order = np.argsort(line)
    is_again = order >= len(lat)
    places = np.concatenate([np.arange(len(lat)), again])[order]
    ordered = _Ordered(
        sample=known[places],
        lon=lon[order],
        lat=lat[places],
        line=line[order],
        width=width[places],
        is_again=is_again,
        reach=reach,
    )
    for begin in range(0, len(order), BLOCK):
        yield from ordered.pairs(np.arange(begin, min(begin + BLOCK, len(order))))


@dataclass(frozen=True)
class _Ordered:
    """Samples in their order on one line, n of them."""

    sample: np.ndarray  # n, its place among all samples
    lon: np.ndarray  # n, degrees from the 180th meridian
    lat: np.ndarray  # n
    line: np.ndarray  # n, ascending: row of latitude and longitude
    width: np.ndarray  # n, degrees of longitude that ``reach`` is
    is_again: np.ndarray  # n bool: the sample occurs a second time, behind the others of its row
    reach: float  # metres

    def pairs(self, place: np.ndarray) -> Iterator[Neighbours]:
        """What lies near the samples at some places of the line."""
        line = self.line[place]
        width = self.width[place]
        # In its own row: the samples behind it.
        yield self._within(
            *_ranges(place, place + 1, np.searchsorted(self.line, line + width, "right"))
        )
        # In the next row: the samples on both sides.
        begin = np.searchsorted(self.line, line + NEXT_ROW - width)
        end = np.searchsorted(self.line, line + NEXT_ROW + width, "right")
        yield self._within(*_ranges(place, begin, end))

    def _within(self, i: np.ndarray, j: np.ndarray) -> Neighbours:
        """Keep the pairs of samples that are near enough, the lower number first."""
        is_new = ~(self.is_again[i] & self.is_again[j])
        i = i[is_new]
        j = j[is_new]
        middle = np.radians((self.lat[i] + self.lat[j]) / 2)
        across = np.abs((self.lon[j] - self.lon[i]) * DEGREE * np.cos(middle))
        down = np.abs((self.lat[j] - self.lat[i]) * DEGREE)
        near_enough = (across <= self.reach) & (down <= self.reach)
        i = self.sample[i[near_enough]]
        j = self.sample[j[near_enough]]
        return Neighbours(
            np.minimum(i, j), np.maximum(i, j), across[near_enough], down[near_enough]
        )


def _ranges(
    place: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pair each place with all integers from its start up to, but not including, its stop."""
    count = np.maximum(stop - start, 0)
    i = np.repeat(place, count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return i, offset + np.repeat(start, count)


def same_picture(rows: SpilledRows, column: str, *, listed: int, most: int = PART) -> Pairs:
    """Find pairs at one place whose picture hashes differ in few bits.

    Args:
        rows: a row for each sample.
        column: the name of the picture hashes.
        listed: number of pairs to name.
        most: how many rows may be in memory at a time, about.
    """

    def is_same(band: np.ndarray, pairs: Neighbours) -> np.ndarray:
        hashes = band[column]
        both = (hashes[pairs.first] != NO_HASH) & (hashes[pairs.second] != NO_HASH)
        apart = hamming_distance(hashes[pairs.first], hashes[pairs.second])
        return both & (apart <= SAME_PICTURE)

    return _collect(_near_by_band(rows, [column], SAME_PLACE * CELL, is_same, most), listed)


def overlapping(rows: SpilledRows, *, listed: int, most: int = PART) -> Pairs:
    """Find pairs of tiles that share ground.

    Tiles are taken as squares with a side to the north; UTM grids are turned by some degrees.

    Args:
        rows: a row for each sample.
        listed: number of pairs to name.
        most: how many rows may be in memory at a time, about.
    """
    largest = max((int(chunk["cells"].max()) for chunk in rows.chunks(BLOCK)), default=0)

    def do_overlap(band: np.ndarray, pairs: Neighbours) -> np.ndarray:
        cells = band["cells"]
        reach = CELL * (cells[pairs.first] + cells[pairs.second]) / 2
        return np.maximum(pairs.across, pairs.down) < reach

    return _collect(_near_by_band(rows, ["cells"], CELL * largest, do_overlap, most), listed)


def _near_by_band(
    rows: SpilledRows,
    columns: list[str],
    reach: float,
    is_pair: Callable[[np.ndarray, Neighbours], np.ndarray],
    most: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of samples that lie near each other, from bands of latitude one after the other.

    Args:
        rows: a row for each sample.
        columns: what ``is_pair`` needs beside the places.
        reach: greatest distance in metres, down and across.
        is_pair: rows of a band, pairs of them -> which pairs to keep, bool.
        most: how many rows may be in memory at a time, about.
    """
    for south, north in pairwise(_edges(rows, most)):
        behind = north + MARGIN * reach / DEGREE  # a pair belongs to the band of its southern half
        band = rows.select(["sample", "lon", "lat", *columns], _between(south, behind))
        for pairs in near(band["lon"], band["lat"], reach):
            southern = np.minimum(band["lat"][pairs.first], band["lat"][pairs.second])
            kept = is_pair(band, pairs) & (southern < north)
            yield band["sample"][pairs.first[kept]], band["sample"][pairs.second[kept]]


def _between(south: float, north: float) -> Callable[[np.ndarray], np.ndarray]:
    """Which rows lie at these latitudes."""
    return lambda rows: (rows["lat"] >= south) & (rows["lat"] < north)


def _edges(rows: SpilledRows, most: int) -> list[float]:
    """Latitudes between which lie about ``most`` samples each, by some evenly chosen ones."""
    parts = -(-len(rows) // most)
    step = -(-len(rows) // BLOCK)
    # copies, as a view would keep its whole chunk in memory
    latitudes = [chunk["lat"][::step].copy() for chunk in rows.chunks(BLOCK)]
    inner: list[float] = []
    if parts > 1:
        known = np.concatenate(latitudes)
        known = known[np.isfinite(known)]
        if len(known):
            inner = np.quantile(known, np.arange(1, parts) / parts).tolist()
    return [-np.inf, *sorted(set(inner)), np.inf]


def _collect(blocks: Iterable[tuple[np.ndarray, np.ndarray]], listed: int) -> Pairs:
    """Count the pairs of all blocks and keep the first."""
    count = 0
    first: list[tuple[int, int]] = []
    for one, other in blocks:
        count += len(one)
        first = nsmallest(listed, [*first, *zip(one.tolist(), other.tolist())])
    return Pairs(count, first)
