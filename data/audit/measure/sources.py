"""Where tiles come from: what a source is called, and what is counted of each."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_SOURCES = 1000  # further ones are counted together: their number must not fill the memory
OTHERS = "all further sources"
ACCURACY_MARK = " (date accuracy: "  # behind a file whose date is a stand-in
ACCURACY = re.compile(r" \(date accuracy: \w+\)$")
# A product of Sentinel-2 names the baseline that made it, after which its offset depends.
BASELINE = re.compile(r"S2[A-D]_(MSIL\w\w)_\w+?_(N\d{4})_")


def source_name(attribution: str, files: str) -> str:
    """Name the source of a tile: whom to credit, the folders of its files, one product's baseline.

    Args:
        attribution: of the tile.
        files: its files as the archive records them, joined by "; ".
    """
    folders = set()
    baselines = set()
    for file in files.split("; "):
        file = ACCURACY.sub("", file)
        folders.add(_first_folder(file))
        product = BASELINE.search(file)
        if product:
            baselines.add(" ".join(product.groups()))
    parts = [attribution or "no attribution", *sorted(folders - {""})]
    if len(baselines) == 1:
        parts += baselines
    return " | ".join(parts)


def _first_folder(file: str) -> str:
    """The first folder of a path, or the host of an address; "" for a bare name."""
    _, mark, rest = file.partition("://")
    if mark:
        return rest.partition("/")[0]
    parents = [part for part in file.split("/")[:-1] if part not in ("", ".", "..")]
    if not parents:
        return ""
    return parents[0]


@dataclass
class SensorTally:
    """Counts of one sensor of one source."""

    tiles: int = 0
    frames: int = 0
    first: str = "9999-12-31"  # ISO day
    last: str = "0001-01-01"
    years: Counter[int] = field(default_factory=Counter)  # year -> frames

    def add(self, days: Sequence[str]) -> None:
        """Count the frames of a tile."""
        self.tiles += 1
        self.frames += len(days)
        self.first = min(self.first, *days)
        self.last = max(self.last, *days)
        self.years.update(int(day[:4]) for day in days)


def _sensors() -> dict[str, SensorTally]:
    return defaultdict(SensorTally)


@dataclass
class SourceTally:
    """Counts of one source."""

    name: str
    tiles: int = 0
    sensors: dict[str, SensorTally] = field(default_factory=_sensors)
    faults: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # verdict, sensor, kind


@dataclass
class Sources:
    """All sources, numbered as they come."""

    tallies: list[SourceTally] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """The number of a source."""
        if name not in self.numbers and len(self.numbers) >= MOST_SOURCES:
            name = OTHERS
        if name not in self.numbers:
            self.numbers[name] = len(self.tallies)
            self.tallies.append(SourceTally(name))
        return self.numbers[name]
