"""A tile to be made: as a manifest describes it, and as it is understood."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from data.prepare.contract.source import Reader
from data.prepare.manifest.stac_sources import ItemSource
from data.prepare.place.spot import Spot


@dataclass(frozen=True)
class Record:
    """A tile as a manifest describes it, whatever the form of the manifest."""

    where: str  # its place, for errors: 'file:7'
    keys: object  # what a line of JSON would hold; a source may be a reader already
    source_places: tuple[str, ...] = ()  # of the sources, where they have places of their own
    items: tuple[ItemSource, ...] = ()  # of a STAC search, which is one scene
    whole: str = ""  # the rule that it is one of many tiles of


class Rule(Protocol):
    """How one record of a manifest makes many tiles, such as those of a scene.

    A rule is made while the manifest is read, and asked once all of it is right.
    """

    def tiles(self, whole: "Entry") -> Iterator["Entry | LeftOut"]:
        """The tiles, always in the same order.

        It may open files, whose number should not grow with the number of tiles.

        Args:
            whole: the record. The tiles are copies of it with keys, and places or readers, of
                their own.

        Raises:
            InputError: there are none; the record is rejected as a tile would be.
        """


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
    split: str = ""  # see tiles.SPLITS; empty where the manifest says nothing
    rule: Rule | None = None  # it stands for many tiles
    whole: str = ""  # key of the record that it is one of many tiles of
    fault: str = ""  # why it cannot be made


@dataclass(frozen=True)
class LeftOut:
    """A tile that a rule does not make."""

    reason: str  # in words that many tiles share
