"""Records of all samples -> counts that stay small: about 60 bytes a sample, whatever the length of
its series."""

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date
from heapq import nlargest, nsmallest

import numpy as np

from data.audit.fingerprint import short
from data.audit.record import Failure, Record

WORST = 10  # samples kept of every list of the worst
NONE = -1  # hash of a sample that has none


@dataclass
class Series:
    """What is known of the frames of one modality."""

    lengths: Counter = field(default_factory=Counter)  # frames of a sample -> samples
    usable: int = 0  # frames with a valid pixel
    months: Counter = field(default_factory=Counter)  # 1..12 -> frames
    years: Counter = field(default_factory=Counter)
    gaps: Counter = field(default_factory=Counter)  # days between neighbouring frames -> how often
    longest: list = field(default_factory=list)  # (days, key): longest gaps, one a sample
    cells: Counter = field(default_factory=Counter)  # month -> cells of all frames
    invalid: Counter = field(default_factory=Counter)  # month -> invalid ones
    emptiest: list = field(default_factory=list)  # (valid share, key): samples with least


@dataclass
class Tally:
    """Takes in one record after the other, in the order of the samples."""

    samples: int = 0
    corrupt: int = 0  # samples with a failure
    failures: list[Failure] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)  # member -> bytes
    sides: Counter = field(default_factory=Counter)  # cells -> samples
    regions: Counter = field(default_factory=Counter)  # region -> samples
    combinations: Counter = field(default_factory=Counter)  # ("hr", "ms") -> samples
    series: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    labelled: int = 0  # samples with a label member
    classes: Counter = field(default_factory=Counter)  # class -> samples that show it
    reasons: Counter = field(
        default_factory=Counter
    )  # why the registration could not tell -> samples
    shifts: list = field(default_factory=list)  # (sample, key, Registration): the longest
    distances: array = field(default_factory=lambda: array("f"))  # of all shifts, cells
    # one entry a sample whose index could be read
    number: array = field(default_factory=lambda: array("q"))
    lon: array = field(default_factory=lambda: array("d"))
    lat: array = field(default_factory=lambda: array("d"))
    cells: array = field(default_factory=lambda: array("i"))
    keys: array = field(default_factory=lambda: array("q"))  # hash of the key
    content: array = field(default_factory=lambda: array("q"))
    looks: dict[str, array] = field(default_factory=lambda: {"hr": array("q"), "ms": array("q")})

    def add(self, record: Record) -> None:
        """Take in a record."""
        self.samples += 1
        self.failures += record.failures
        self.corrupt += bool(record.failures)
        if record.key is None:
            return
        self.sizes.update(record.sizes)
        self.sides[record.cells] += 1
        self.regions[record.region] += 1
        self.combinations[tuple(record.dates)] += 1
        self._add_columns(record)
        for name, days in record.dates.items():
            self._add_days(
                self.series[name], record, name, [date.fromisoformat(day) for day in days]
            )
        if record.classes is not None:
            self.labelled += 1
            self.classes.update(record.classes)
        if record.registration is not None:
            self._add_registration(record)

    def _add_columns(self, record: Record) -> None:
        """What the search for duplicates needs."""
        for column, value in (
            (self.number, record.sample),
            (self.lon, record.lon),
            (self.lat, record.lat),
            (self.cells, record.cells),
            (self.keys, short(record.key)),
            (self.content, record.content),
        ):
            column.append(value)
        self.looks["hr"].append(record.looks.get("hr", NONE))
        self.looks["ms"].append(
            NONE if "hr" in record.looks else record.looks.get("ms", NONE)
        )  # one hash a sample

    def _add_days(self, series: Series, record: Record, name: str, days: list[date]) -> None:
        """Dates of a modality and the invalid cells of its frames."""
        series.lengths[len(days)] += 1
        series.usable += record.usable.get(name, 0)
        series.months.update(day.month for day in days)
        series.years.update(day.year for day in days)
        gaps = [(after - before).days for before, after in zip(days, days[1:])]
        series.gaps.update(gaps)
        if gaps:
            series.longest = nlargest(WORST, [*series.longest, (max(gaps), record.key)])
        invalid, whole = record.invalid.get(name, []), record.cells**2
        for day, count in zip(days, invalid):
            series.cells[day.month] += whole
            series.invalid[day.month] += count
        if invalid:
            share = 1 - sum(invalid) / (whole * len(invalid))
            series.emptiest = nsmallest(WORST, [*series.emptiest, (share, record.key)])

    def _add_registration(self, record: Record) -> None:
        """A shift, or why there is none."""
        found = record.registration
        if found.shift is None:
            self.reasons[found.reason] += 1
            return
        self.distances.append(found.distance)
        self.shifts = nlargest(
            WORST,
            [*self.shifts, (record.sample, record.key, found)],
            key=lambda entry: entry[2].distance,
        )


def column(values: array) -> np.ndarray:
    """A column of the tally as an array, without a copy."""
    return np.frombuffer(values, values.typecode) if len(values) else np.empty(0, values.typecode)
