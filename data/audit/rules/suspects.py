"""The faults of all tiles and sources: counted all, the worst of every kind kept."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from heapq import nlargest

from data.audit.measure.fault import WRONG, Fault
from data.audit.measure.fingerprint import text_hash
from data.audit.measure.record import Record
from data.audit.measure.sources import Sources
from data.audit.rules.comparison import compared_faults
from data.audit.rules.reference import Place, Rows
from data.audit.rules.source_rules import source_faults
from data.tiles.modalities import MODALITIES

LISTED = 20  # tiles of every kind of fault


@dataclass(frozen=True)
class Suspect:
    """A tile with a fault."""

    sample: int
    source: int
    fault: Fault


@dataclass(frozen=True)
class SuspectSource:
    """A source with a fault."""

    source: int
    fault: Fault


def _strength(suspect: Suspect) -> tuple[float, int]:
    return suspect.fault.strength, -suspect.sample


def _lists() -> dict[tuple[str, str, str], list[Suspect]]:
    return defaultdict(list)


@dataclass
class Suspects:
    """Takes in the records one after the other; ``compare`` ends it."""

    sources: Sources = field(default_factory=Sources)
    rows: dict[str, Rows] = field(default_factory=dict)  # sensor -> its tiles
    # verdict, sensor, kind -> tiles
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    worst: dict[tuple[str, str, str], list[Suspect]] = field(default_factory=_lists)
    of_sources: list[SuspectSource] = field(default_factory=list)

    def add(self, record: Record, key: str) -> None:
        """Take in a record whose key is ``key``."""
        number = self.sources.number(record.source)
        tally = self.sources.tallies[number]
        tally.tiles += 1
        for name, days in record.dates.items():
            tally.sensors[name].add(days)
        for fault in record.faults:
            self.note(Suspect(record.sample, number, fault))
        place = Place(record.sample, number, files=record.files_hash, key_hash=text_hash(key))
        # What is wrong by itself must not be what others are compared with.
        wrong = {fault.sensor for fault in record.faults if fault.verdict == WRONG}
        for name, profile in record.profiles.items():
            if profile.pixels and name not in wrong:
                if name not in self.rows:
                    self.rows[name] = Rows.of_bands(len(MODALITIES[name].bands))
                self.rows[name].add(place, profile)

    def note(self, suspect: Suspect) -> None:
        """Count a fault, and keep it if it is among the worst."""
        fault = suspect.fault
        kind = (fault.verdict, fault.sensor, fault.kind)
        self.counts[kind] += 1
        self.sources.tallies[suspect.source].faults[kind] += 1
        self.worst[kind] = nlargest(LISTED, [*self.worst[kind], suspect], key=_strength)

    def compare(self) -> None:
        """Compare all tiles with each other, and the sources with each other."""
        for name, rows in self.rows.items():
            for sample, source, fault in compared_faults(name, rows):
                self.note(Suspect(sample, source, fault))
            for source, fault in source_faults(name, rows):
                self.of_sources.append(SuspectSource(source, fault))
