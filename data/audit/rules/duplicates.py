"""Pairs of samples with the same key, bytes or picture, and of tiles that overlap.

Places are compared in metres on the sphere. Samples are sorted by rows of latitude first, so that
no sample is compared with all others.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np

from data.audit.measure.fingerprint import hamming_distance

DEGREE = 111_195.0  # metres of a degree of latitude on the sphere of 6371 km
CELL = 10.0  # metres
SAME_PLACE = 1.0  # cells: greatest distance of two centres, down and across
SAME_PICTURE = 6  # bits of 63: greatest difference of two hashes of one picture
BLOCK = 65_536  # samples whose neighbours are looked up at a time
NEXT_ROW = 1000.0  # degrees between two rows of latitude on the line that holds them all
MARGIN = 1.01  # the next row may be nearer to the pole, where a degree of longitude is shorter


@dataclass(frozen=True)
class Pairs:
    """The number of pairs, and the first of them in the order of the samples."""

    count: int
    first: list[tuple[int, int]]


@dataclass(frozen=True)
class Neighbours:
    """Pairs of samples that lie near each other, n of them."""

    first: np.ndarray  # n, the lower number of the two samples
    second: np.ndarray  # n
    across: np.ndarray  # n, metres between the centres from west to east
    down: np.ndarray  # n, metres between the centres from north to south


def equal_values(values: np.ndarray, *, listed: int) -> Pairs:
    """Find neighbours among equal values: n equal samples are n - 1 pairs.

    Args:
        values: a value of each sample.
        listed: number of pairs to name.
    """
    order = np.argsort(values, kind="stable")
    before = order[:-1]
    after = order[1:]
    same = values[after] == values[before]
    pairs = np.stack([before[same], after[same]], 1).tolist()  # n 2
    first = [(one, other) for one, other in sorted(pairs)[:listed]]
    return Pairs(len(pairs), first)


def near(lon: np.ndarray, lat: np.ndarray, reach: float) -> Iterator[Neighbours]:
    """Find pairs whose centres lie at most ``reach`` metres apart, down and across.

    Each pair comes once. Pairs on both sides of the 180th meridian are not found, nor samples whose
    place is NaN.

    Args:
        lon: longitude of each sample in degrees.
        lat: latitude of each sample in degrees.
        reach: greatest distance in metres, and the height of a row.
    """
    row = np.floor((lat + 90) * DEGREE / reach)
    line = row * NEXT_ROW + lon + 180  # all rows one behind the other, far enough apart
    order = np.argsort(line)[: np.isfinite(line).sum()]  # NaN comes last
    line = line[order]
    width = MARGIN * reach / DEGREE / np.maximum(np.cos(np.radians(lat)), 1e-3)  # degrees
    width = np.minimum(width, 360)[order]
    for begin in range(0, len(line), BLOCK):
        place = np.arange(begin, min(begin + BLOCK, len(line)))
        # In its own row: the samples behind it.
        own_end = np.searchsorted(line, line[place] + width[place], "right")
        i, j = _ranges(place, place + 1, own_end)
        yield _within(order[i], order[j], lon=lon, lat=lat, reach=reach)
        # In the next row: the samples on both sides.
        next_begin = np.searchsorted(line, line[place] + NEXT_ROW - width[place])
        next_end = np.searchsorted(line, line[place] + NEXT_ROW + width[place], "right")
        i, j = _ranges(place, next_begin, next_end)
        yield _within(order[i], order[j], lon=lon, lat=lat, reach=reach)


def _ranges(
    place: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pair each place with all integers from its start up to, but not including, its stop."""
    count = np.maximum(stop - start, 0)
    i = np.repeat(place, count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return i, offset + np.repeat(start, count)


def _within(
    i: np.ndarray, j: np.ndarray, *, lon: np.ndarray, lat: np.ndarray, reach: float
) -> Neighbours:
    """Keep the pairs of samples that are near enough, the lower number first."""
    middle = np.radians((lat[i] + lat[j]) / 2)
    across = np.abs((lon[j] - lon[i]) * DEGREE * np.cos(middle))
    down = np.abs((lat[j] - lat[i]) * DEGREE)
    near_enough = (across <= reach) & (down <= reach)
    return Neighbours(
        np.minimum(i, j)[near_enough],
        np.maximum(i, j)[near_enough],
        across[near_enough],
        down[near_enough],
    )


def same_picture(
    lon: np.ndarray,
    lat: np.ndarray,
    hashes: np.ndarray,
    *,
    hashed: np.ndarray,
    listed: int,
) -> Pairs:
    """Find pairs at one place whose picture hashes differ in few bits.

    Args:
        lon: longitude of each sample in degrees.
        lat: latitude of each sample in degrees.
        hashes: picture hash of each sample.
        hashed: which samples have a hash (bool).
        listed: number of pairs to name.
    """
    samples = np.flatnonzero(hashed)

    def matches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for block in near(lon[hashed], lat[hashed], SAME_PLACE * CELL):
            first = samples[block.first]
            second = samples[block.second]
            same = hamming_distance(hashes[first], hashes[second]) <= SAME_PICTURE
            yield first[same], second[same]

    return _collect(matches(), listed)


def overlapping(lon: np.ndarray, lat: np.ndarray, cells: np.ndarray, *, listed: int) -> Pairs:
    """Find pairs of tiles that share ground.

    Tiles are taken as squares with a side to the north; UTM grids are turned by some degrees.

    Args:
        lon: longitude of each sample in degrees.
        lat: latitude of each sample in degrees.
        cells: cells along a side of each sample.
        listed: number of pairs to name.
    """
    if not len(cells):
        return Pairs(0, [])

    def matches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for block in near(lon, lat, CELL * float(cells.max())):
            reach = CELL * (cells[block.first] + cells[block.second]) / 2
            shared = np.maximum(block.across, block.down) < reach
            yield block.first[shared], block.second[shared]

    return _collect(matches(), listed)


def _collect(blocks: Iterable[tuple[np.ndarray, np.ndarray]], listed: int) -> Pairs:
    """Count the pairs of all blocks and keep the first."""
    count = 0
    first: list[tuple[int, int]] = []
    for one, other in blocks:
        count += len(one)
        first = nsmallest(listed, [*first, *zip(one.tolist(), other.tolist())])
    return Pairs(count, first)
