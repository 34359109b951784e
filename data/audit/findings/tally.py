"""Records of all samples -> counts that stay small.

They take about 60 bytes a sample, whatever the length of its series.
"""

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date
from heapq import nlargest, nsmallest
from itertools import pairwise

import numpy as np

from data.audit.measure.fingerprint import text_hash
from data.audit.measure.record import Failure, Record
from data.audit.measure.registration import Registration
from data.audit.rules.suspects import Suspects

LISTED = 10  # samples kept in every list of the worst
NO_HASH = -1  # of a sample without a picture hash


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


def _integers() -> array:
    return array("q")


def _degrees() -> array:
    return array("d")


@dataclass
class Columns:
    """One entry for each sample whose index could be read: what the search for duplicates needs."""

    number: array = field(default_factory=_integers)
    lon: array = field(default_factory=_degrees)
    lat: array = field(default_factory=_degrees)
    cells: array = field(default_factory=lambda: array("i"))
    key_hash: array = field(default_factory=_integers)
    content_hash: array = field(default_factory=_integers)
    # Picture hashes. A sample with a hash of its high resolution has none of its Sentinel-2.
    hr_hash: array = field(default_factory=_integers)
    ms_hash: array = field(default_factory=_integers)

    def add(self, record: Record, key: str) -> None:
        """Append a record whose key is ``key``."""
        self.number.append(record.sample)
        self.lon.append(record.lon)
        self.lat.append(record.lat)
        self.cells.append(record.cells)
        self.key_hash.append(text_hash(key))
        self.content_hash.append(record.content_hash)
        hashes = record.picture_hashes
        self.hr_hash.append(hashes.get("hr", NO_HASH))
        if "hr" in hashes:
            self.ms_hash.append(NO_HASH)
        else:
            self.ms_hash.append(hashes.get("ms", NO_HASH))


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
    distances: array = field(default_factory=lambda: array("f"))  # of all shifts, in cells
    columns: Columns = field(default_factory=Columns)
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
        self.columns.add(record, record.key)
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
        self.distances.append(distance)
        shifted = Shifted(sample, key, registration, distance)
        self.shifts = nlargest(LISTED, [*self.shifts, shifted], key=_distance)


def as_array(column: array) -> np.ndarray:
    """A column as an array, without a copy."""
    if not len(column):
        return np.empty(0, column.typecode)
    return np.frombuffer(column, column.typecode)
