"""Frames that cover different parts of a tile, joined to one before anything is judged.

An acquisition comes in several files where a tile lies on their border: the tiles of a product
grid, the parts of a split datatake, the slices of a pass, the sheets of an aerial survey.
"""

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import pairwise

import numpy as np

from data.prepare.contract.source import Frames
from data.tiles.modalities import DECIBEL, IMAGE, MODALITIES

# A satellite is over a tile for less than a minute; the parts of one datatake may bear its start.
ONE_PASS = timedelta(minutes=15)
# dB. Cuts of one acquisition are equal up to resampling. Other passes have another speckle: two
# looks of 10 m pixels differ by about 2 dB in the median.
SAME_SPECKLE = 1.0


@dataclass(frozen=True)
class Joined:
    """A series whose neighbours are joined."""

    frames: Frames
    into_others: int  # frames that went into others
    strangers: list[str]  # days with parts that may be of two passes, for nobody knows their times


def join_neighbours(frames: Frames) -> Joined:
    """Fill the gaps of a frame with the other frames of its day, or of its year for an image.

    Of the frames of a day the one with the most valid pixels comes first, the first of the manifest
    among equals. Where it is valid it stays as it is; where it is not, the next one that is valid
    fills it. SAR frames are joined only if they are of one pass, by their times or the speckle that
    they share: two orbits look at the ground from two sides, and their pixels must not lie in one
    frame.

    Args:
        frames: of one sensor, from all sources of a tile.

    Returns:
        The series, where a joined frame stands once and bears the date of its first frame. What
        ``frames`` holds is changed.
    """
    into_others: set[int] = set()
    strangers: list[str] = []
    for group in _groups(frames):
        left = sorted(group, key=lambda i: -int(frames.valid[i].sum()))
        while len(left) > 1:
            first, *others = left
            used = _fill(frames, first, others)
            into_others |= used
            strangers += _strangers(frames, first, set(others) - used)
            left = [other for other in others if other not in used]
    keep = [i for i in range(len(frames.dates)) if i not in into_others]
    return Joined(frames.keep(keep), len(into_others), sorted(set(strangers)))


def _groups(frames: Frames) -> list[list[int]]:
    """The positions of frames that may belong together, for each day or year."""
    length = len("2020-05-01")
    if frames.modality == IMAGE:
        length = len("2020")
    groups: dict[str, list[int]] = {}
    for i, day in enumerate(_days_of_passes(frames)):
        groups.setdefault(day[:length], []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _days_of_passes(frames: Frames) -> list[str]:
    """The day on which the pass of each frame began: at some longitudes it is over at 0:00 UTC."""
    days = list(frames.dates)
    known = []
    for i in range(len(days)):
        start = _time(frames, i)
        if start is not None:
            known.append((start, i))
    known.sort()
    for (start, i), (later, j) in pairwise(known):
        if later - start <= ONE_PASS:
            days[j] = days[i]
    return days


def _fill(frames: Frames, first: int, others: list[int]) -> set[int]:
    """Fill the gaps of a frame in place; returns the frames whose pixels were used."""
    used = set()
    for other in others:
        gap = ~frames.valid[first] & frames.valid[other]  # h h
        if not gap.any() or not _belong_together(frames, first, other):
            continue
        frames.array[first][:, gap] = frames.array[other][:, gap]
        frames.valid[first] |= gap
        used.add(other)
    return used


def _belong_together(frames: Frames, first: int, other: int) -> bool:
    """Whether two frames of a day may lie in one frame. Two optical ones always may."""
    if MODALITIES[frames.modality].unit != DECIBEL:
        return True
    start = _time(frames, first)
    other_start = _time(frames, other)
    if start is not None and other_start is not None:
        return abs(start - other_start) <= ONE_PASS
    shared = frames.valid[first] & frames.valid[other]
    if not shared.any():
        return False  # two swaths may end inside a tile, as well as two slices of one
    difference = frames.array[first][:, shared] - frames.array[other][:, shared]
    return bool(np.median(np.abs(difference)) <= SAME_SPECKLE)


def _strangers(frames: Frames, first: int, others: Set[int]) -> list[str]:
    """The days of frames beside another that nothing tells to be of its pass, or not to be."""
    days = []
    for other in others:
        is_timed = _time(frames, first) is not None and _time(frames, other) is not None
        is_beside = (
            frames.valid[other].any() and not (frames.valid[first] & frames.valid[other]).any()
        )
        if frames.valid[first].any() and is_beside and not is_timed:
            days.append(frames.dates[other])
    return days


def _time(frames: Frames, position: int) -> datetime | None:
    """The time of a frame; None where it is not known.

    Midnight is how series of days are written, and says nothing of two passes on one day.
    """
    if frames.times is None:
        return None
    moment = frames.times[position]
    if moment is None or moment.time() == time.min:
        return None
    return moment
