"""One record of a manifest -> the many tiles that it stands for."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.errors import InputError
from data.prepare.contract.blame import blamed_on
from data.prepare.manifest.entry import Entry, LeftOut


@dataclass
class Tiles:
    """The tiles of a manifest."""

    entries: list[Entry] = field(default_factory=list)
    # Key of a record of many tiles -> why some of them are not made -> how many.
    left_out: dict[str, Counter[str]] = field(default_factory=dict)


def expanded(entries: Iterable[Entry], manifest: str | Path) -> Tiles:
    """The tiles of all records, in the order of the manifest.

    A record that gives none becomes one tile with a fault, so that it is rejected and the others
    are made.

    Args:
        entries: the records.
        manifest: their file, for errors.

    Raises:
        InputError: two tiles have one key.
    """
    tiles = Tiles()
    keys: dict[str, str] = {}  # of a tile -> of its record
    for whole in entries:
        own = [whole]
        if whole.whole:
            tiles.left_out.setdefault(whole.whole, Counter())
        if whole.rule is not None:
            tiles.left_out[whole.key] = Counter()
            own = _tiles_of(whole, tiles.left_out[whole.key])
        for entry in own:
            if entry.key in keys:
                raise InputError(
                    f"{manifest}: the record {whole.key!r} gives a tile {entry.key!r}, and so does "
                    f"{keys[entry.key]!r}; change one of the keys"
                )
            keys[entry.key] = whole.key
        tiles.entries += own
    return tiles


def _tiles_of(whole: Entry, left_out: Counter[str]) -> list[Entry]:
    """The tiles that one record stands for; those that are left out are counted."""
    assert whole.rule is not None
    entries = []
    try:
        with blamed_on(f"the sources of {whole.key!r}"):
            for tile in whole.rule.tiles(whole):
                if isinstance(tile, LeftOut):
                    left_out[tile.reason] += 1
                else:
                    entries.append(replace(tile, rule=None, whole=whole.key))
    except InputError as error:
        return [replace(whole, rule=None, fault=str(error))]
    if not entries:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        return [replace(whole, rule=None, fault=f"no tile is left of it ({reasons or 'empty'})")]
    return entries
