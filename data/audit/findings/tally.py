"""Records of all samples -> counts that stay small.

What is needed of every single sample, to find duplicates, waits on the disk.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date
from heapq import nlargest, nsmallest
from itertools import pairwise

import numpy as np

from data.audit.measure.fingerprint import text_hash
from data.audit.measure.record import Failure, Record
from data.audit.measure.registration import Registration
from data.audit.rules.duplicates import NO_HASH, SAMPLE_ROW
from data.audit.rules.spilled import SpilledRows
from data.audit.rules.suspects import Suspects

LISTED = 10  # samples kept in every list of the worst
FINEST = 1000  # steps of a cell in which shifts are counted


@dataclass
class Series:
    """Counts of the frames of one modality."""

    lengths: Counter[int] = field(default_factory=Counter)  # frames of a sample -> samples
    usable: int = 0  # frames with a valid pixel
    months: Counter[int] = field(default_factory=Counter)  # 1..12 -> frames
    years: Counter[int] = field(default_factory=Counter)  # year -> frames
    gaps: Counter[int] = field(default_factory=Counter)  # days between neighbours -> how often
    longest: list[tuple[int, str]] = field(default_factory=list)  # (days, key), one a sample
    cells: Counter[int] = field(default_factory=Counter)  # month -> cells of all frames
    invalid: Counter[int] = field(default_factory=Counter)  # month -> invalid cells
    emptiest: list[tuple[float, str]] = field(default_factory=list)  # (valid share, key)

    def add(self, record: Record, name: str, key: str) -> None:
        """Count the frames of modality ``name`` of a record whose key is ``key``."""
        days = [date.fromisoformat(day) for day in record.dates[name]]
        self.lengths[len(days)] += 1
        self.usable += record.usable.get(name, 0)
        for day in days:
            self.months[day.month] += 1
            self.years[day.year] += 1
        gaps = [(after - before).days for before, after in pairwise(days)]
        self.gaps.update(gaps)
        if gaps:
            self.longest = nlargest(LISTED, [*self.longest, (max(gaps), key)])
        invalid = record.invalid.get(name, [])
        cells = record.cells**2  # of one frame
        for day, count in zip(days, invalid):
            self.cells[day.month] += cells
            self.invalid[day.month] += count
        if invalid:
            share = 1 - sum(invalid) / (cells * len(invalid))
            self.emptiest = nsmallest(LISTED, [*self.emptiest, (share, key)])


@dataclass(frozen=True)
class Shifted:
    """A sample whose shift was found."""

    sample: int
    key: str
    registration: Registration
    distance: float  # cells


def _distance(shifted: Shifted) -> float:
    return shifted.distance


def sample_row(record: Record, key: str) -> bytes:
    """What the search for duplicates needs of a record whose key is ``key``."""
    hashes = record.picture_hashes
    row = np.zeros((), SAMPLE_ROW)
    row["sample"] = record.sample
    row["lon"] = record.lon
    row["lat"] = record.lat
    row["cells"] = record.cells
    row["key_hash"] = text_hash(key)
    row["content_hash"] = record.content_hash
    row["hr_hash"] = hashes.get("hr", NO_HASH)
    row["ms_hash"] = NO_HASH if "hr" in hashes else hashes.get("ms", NO_HASH)
    return row.tobytes()


def _no_rows() -> SpilledRows:
    return SpilledRows(SAMPLE_ROW)


def _all_series() -> dict[str, Series]:
    return defaultdict(Series)


@dataclass
class Tally:
    """Takes in one record after the other, in the order of the samples."""

    samples: int = 0
    corrupt: int = 0  # samples with a failure
    failures: list[Failure] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)  # member -> bytes
    sides: Counter[int] = field(default_factory=Counter)  # cells along a side -> samples
    regions: Counter[int] = field(default_factory=Counter)  # region -> samples
    # ("hr", "ms") -> samples with exactly these modalities
    combinations: Counter[tuple[str, ...]] = field(default_factory=Counter)
    series: dict[str, Series] = field(default_factory=_all_series)
    labelled: int = 0  # samples with a label member
    classes: Counter[int] = field(default_factory=Counter)  # class -> samples that show it
    reasons: Counter[str] = field(default_factory=Counter)  # why there is no shift -> samples
    shifts: list[Shifted] = field(default_factory=list)  # the longest
    distances: Counter[int] = field(default_factory=Counter)  # thousandths of a cell -> shifts
    rows: SpilledRows = field(default_factory=_no_rows)  # of every sample whose index can be read
    suspects: Suspects = field(default_factory=Suspects)

    def add(self, record: Record) -> None:
        """Take in a record."""
        self.samples += 1
        self.failures += record.failures
        if record.failures:
            self.corrupt += 1
        if record.key is None:
            return
        self.sizes.update(record.sizes)
        self.sides[record.cells] += 1
        self.regions[record.region] += 1
        self.combinations[tuple(record.dates)] += 1
        self.rows.append(sample_row(record, record.key))
        for name in record.dates:
            self.series[name].add(record, name, record.key)
        if record.classes is not None:
            self.labelled += 1
            self.classes.update(record.classes)
        if not record.failures:
            self.suspects.add(record, record.key)
        if record.registration is not None:
            self._add_registration(record.sample, record.key, record.registration)

    def _add_registration(self, sample: int, key: str, registration: Registration) -> None:
        """Count a shift, or why there is none."""
        distance = registration.distance
        if distance is None:
            self.reasons[registration.reason] += 1
            return
        self.distances[round(distance * FINEST)] += 1
        shifted = Shifted(sample, key, registration, distance)
        self.shifts = nlargest(LISTED, [*self.shifts, shifted], key=_distance)
