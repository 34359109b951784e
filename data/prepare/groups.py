"""What became of the many tiles of a record, such as a scene: counted, not listed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from data.prepare.manifest.expand import Tiles
from data.prepare.record import LeftOutTile, MadeTile, TileRecord

MOST_TOLD = 3  # rejected or doubtful tiles of a record that have lines of their own at once


@dataclass
class Group:
    """The tiles of one record."""

    made: int = 0
    rejected: int = 0
    splits: dict[str, int] = field(default_factory=dict)  # of those that are made, where they have
    left_out: dict[str, int] = field(default_factory=dict)  # why -> how many

    def __str__(self) -> str:
        text = f"{self.made} tiles"
        if self.splits:
            named = ", ".join(f"{name} {count}" for name, count in self.splits.items())
            text += f" ({named})"
        text += f", {self.rejected} rejected"
        if self.left_out:
            named = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
            text += f", left out: {named}"
        return text


def groups_of(tiles: Tiles, records: Mapping[str, TileRecord]) -> dict[str, Group]:
    """The groups of a run, by the key of the manifest's record.

    Args:
        tiles: of the manifest.
        records: of the tiles, by key.
    """
    groups = {key: Group(left_out=dict(counts)) for key, counts in tiles.left_out.items()}
    for entry in tiles.entries:
        if not entry.whole:
            continue
        group = groups[entry.whole]
        record = records[entry.key]
        if isinstance(record, LeftOutTile):
            _count(group.left_out, record.left_out)
        elif isinstance(record, MadeTile):
            group.made += 1
            if entry.split:
                _count(group.splits, entry.split)
        else:
            group.rejected += 1
    return groups


def groups_json(groups: Mapping[str, Group]) -> dict:
    """The groups as the report has them."""
    return {key: asdict(group) for key, group in groups.items()}


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


class News:
    """Which tiles are worth a line at once: of the many of a record only the first few."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()

    def is_news(self, whole: str) -> bool:
        """Count one more.

        Args:
            whole: key of the record; empty for a tile that is one of its own.
        """
        if not whole:
            return True
        self._told[whole] += 1
        return self._told[whole] <= MOST_TOLD
