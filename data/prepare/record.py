"""What a preparation run records of each tile: a line of its journal, an item of its report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from data.prepare.contract.units import DOUBT
from data.tiles.tile import UNLABELLED, Tile

REPORT = "report.json"
PLAN = "plan"  # key of the report: hash of what decides the archive
MOST_NAMED = 20  # tiles that an error names


@dataclass(frozen=True)
class MadeTile:
    """A tile that is in the archive."""

    key: str
    cells: int
    lon: float | None  # degrees, rounded; None: nobody knows the place
    lat: float | None
    crs: str
    frames: dict[str, int]  # modality -> number of frames
    valid: dict[str, float]  # modality -> share of valid cells
    labelled: float | None  # share of labelled pixels; None without labels
    digest: str  # of the content, see archive.tile_digest
    notes: list[str]  # what was left out of it
    entry: str = ""  # what it was made of, see ``fingerprint``; empty: made by an earlier version

    @property
    def is_doubtful(self) -> bool:
        """Whether its numbers may be in another unit than they are taken for."""
        return any(note.startswith(DOUBT) for note in self.notes)

    def __str__(self) -> str:
        frames = ", ".join(f"{name} {count}" for name, count in self.frames.items())
        labelled = "no labels"
        if self.labelled is not None:
            labelled = f"{self.labelled:.0%} labelled"
        return f"{self.key}: {self.cells} x {self.cells} cells, frames {frames}, {labelled}"


@dataclass(frozen=True)
class RejectedTile:
    """A tile that was not made."""

    key: str
    notes: list[str]  # what was left out of it; the last line says why it was rejected
    is_doubtful: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"{self.key}: rejected"


@dataclass(frozen=True)
class LeftOutTile:
    """One of the many tiles of a record, such as a scene, over which there is too little."""

    key: str
    left_out: str  # why, in words that many tiles share
    is_doubtful: ClassVar[bool] = False
    notes: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return f"{self.key}: left out"


TileRecord = MadeTile | RejectedTile | LeftOutTile


def record_of(tile: Tile, *, digest: str, notes: list[str]) -> MadeTile:
    """The record of a tile that was just written."""
    labels = tile.arrays.get("labels")
    labelled = None
    if labels is not None:
        labelled = round(float((labels != UNLABELLED).mean()), 4)
    frames = {}
    valid = {}
    for modality in tile.modalities:
        frames[modality] = len(tile.dates[modality])
        valid[modality] = round(float(tile.valid[modality].mean()), 4)
    return MadeTile(
        key=tile.key,
        cells=tile.cells,
        lon=_rounded(tile.lon),
        lat=_rounded(tile.lat),
        crs=tile.crs,
        frames=frames,
        valid=valid,
        labelled=labelled,
        digest=digest,
        notes=notes,
    )


def _rounded(degrees: float | None) -> float | None:
    """An angle as the report has it."""
    if degrees is None:
        return None
    return round(degrees, 6)


def to_json(record: TileRecord) -> dict:
    """A record as JSON has it."""
    return asdict(record)


def from_json(fields: dict) -> TileRecord:
    """The record that ``to_json`` made ``fields`` of. Only a tile that was made has a digest."""
    if "digest" in fields:
        return MadeTile(**fields)
    if "left_out" in fields:
        return LeftOutTile(**fields)
    return RejectedTile(**fields)


def first_of(keys: Sequence[str]) -> str:
    """``a, b and 7 more``: the first of many tiles, for an error."""
    names = ", ".join(keys[:MOST_NAMED])
    if len(keys) > MOST_NAMED:
        names += f" and {len(keys) - MOST_NAMED} more"
    return names
