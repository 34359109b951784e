"""Samples that are there twice: the same key, the same bytes, the same picture of the same place;
and tiles that overlap. Places are compared in metres on the sphere, rows of latitude first, so that
no sample meets all others."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np

from data.audit.fingerprint import distance

DEGREE = 111_195.0  # metres of a degree of latitude on the sphere of 6371 km
CELL = 10.0  # metres
SAME_PLACE = 1.0  # cells between two centres, down and across
SAME_LOOKS = 6  # bits of 63 in which two hashes of one picture differ at most
BLOCK = 65_536  # samples whose neighbours are looked up at a time


@dataclass(frozen=True)
class Pairs:
    """How many pairs there are, and the first of them by number of sample."""

    count: int
    first: list[tuple[int, int]]


def equal(values: np.ndarray, most: int) -> Pairs:
    """Pairs of neighbours among equal values: n equal samples are n - 1 pairs."""
    order = np.argsort(values, kind="stable")
    same = values[order[1:]] == values[order[:-1]]
    pairs = np.stack([order[:-1][same], order[1:][same]], 1)  # n 2
    return Pairs(len(pairs), [tuple(pair) for pair in sorted(pairs.tolist())[:most]])


def near(lon: np.ndarray, lat: np.ndarray, reach: float) -> Iterator[tuple[np.ndarray, ...]]:
    """Pairs whose centres lie at most ``reach`` metres apart, down and across: blocks (i, j, metres
    across, metres down), each pair once. Pairs on both sides of the 180th meridian are not seen."""
    row = np.floor((lat + 90) * DEGREE / reach)
    line = row * 1000 + lon + 180  # all rows one behind the other, far enough apart
    order = np.argsort(line)
    line = line[order]
    across = (
        1.01 * reach / DEGREE / np.maximum(np.cos(np.radians(lat)), 1e-3)
    )  # degrees; the next row may be narrower
    across = np.minimum(across, 360)[order]
    for first in range(0, len(line), BLOCK):
        here = np.arange(first, min(first + BLOCK, len(line)))
        # in its own row the samples behind it; in the next row the samples on both sides
        for start, stop in (
            (here + 1, np.searchsorted(line, line[here] + across[here], "right")),
            (
                np.searchsorted(line, line[here] + 1000 - across[here]),
                np.searchsorted(line, line[here] + 1000 + across[here], "right"),
            ),
        ):
            count = np.maximum(stop - start, 0)
            i = np.repeat(here, count)
            j = (
                np.arange(count.sum())
                - np.repeat(np.cumsum(count) - count, count)
                + np.repeat(start, count)
            )
            i, j = order[i], order[j]
            dx = (lon[j] - lon[i]) * DEGREE * np.cos(np.radians((lat[i] + lat[j]) / 2))
            dy = (lat[j] - lat[i]) * DEGREE
            kept = (np.abs(dx) <= reach) & (np.abs(dy) <= reach)
            yield np.minimum(i, j)[kept], np.maximum(i, j)[kept], np.abs(dx)[kept], np.abs(dy)[kept]


def same_picture(
    lon: np.ndarray, lat: np.ndarray, looks: np.ndarray, seen: np.ndarray, most: int
) -> Pairs:
    """Pairs at one place whose hashes differ in few bits. ``seen``: samples that have a hash
    (bool)."""
    samples, looks = np.flatnonzero(seen), looks[seen]
    blocks = near(lon[seen], lat[seen], SAME_PLACE * CELL)
    return _counted(
        (
            (samples[i], samples[j], distance(looks[i], looks[j]) <= SAME_LOOKS)
            for i, j, _, _ in blocks
        ),
        most,
    )


def overlapping(lon: np.ndarray, lat: np.ndarray, cells: np.ndarray, most: int) -> Pairs:
    """Pairs of tiles that share ground, both taken as squares to the north (UTM grids are turned by
    some degrees)."""
    if not len(cells):
        return Pairs(0, [])
    blocks = near(lon, lat, CELL * float(cells.max()))
    return _counted(
        ((i, j, np.maximum(dx, dy) < CELL * (cells[i] + cells[j]) / 2) for i, j, dx, dy in blocks),
        most,
    )


def _counted(blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], most: int) -> Pairs:
    """Count the pairs of blocks (i, j, whether it is one) and keep the first."""
    count, first = 0, []
    for i, j, kept in blocks:
        count += int(kept.sum())
        first = nsmallest(most, [*first, *zip(i[kept].tolist(), j[kept].tolist())])
    return Pairs(count, first)
