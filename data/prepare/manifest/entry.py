"""A tile to be made, as a manifest describes it."""

from dataclasses import dataclass

from data.prepare.contract.source import Reader
from data.prepare.contract.spot import Spot


@dataclass(frozen=True)
class Entry:
    """A tile to be made."""

    key: str
    readers: tuple[Reader, ...]
    licence: str
    attribution: str
    spot: Spot | None = None  # None: the sources say where it lies
