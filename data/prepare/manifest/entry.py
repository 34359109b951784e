"""A tile to be made: as a manifest describes it, and as it is understood."""

from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.contract.source import Reader
from data.prepare.contract.spot import Spot


@dataclass(frozen=True)
class Record:
    """A tile as a manifest describes it, whatever the form of the manifest."""

    where: str  # its place, for errors: 'file:7'
    keys: object  # what a line of JSON would hold; a source may be a reader already
    source_places: tuple[str, ...] = ()  # of the sources, where they have places of their own


@dataclass(frozen=True)
class Entry:
    """A tile to be made."""

    key: str
    readers: tuple[Reader, ...]
    licence: str
    attribution: str
    spot: Spot | None = None  # None: the sources say where it lies
    # Of the manifest: what a tile records of its files is relative to it.
    folder: Path = field(default=Path(), compare=False)
