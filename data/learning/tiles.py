"""What a labelled set becomes: a manifest of its tiles, and a table of their labels."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.files import write_whole

MANIFEST = "manifest.jsonl"
LABELS = "labels.csv"


@dataclass(frozen=True)
class LabelledTile:
    """A tile of a labelled set."""

    key: str
    split: str  # train or test
    label: str | None  # its class; None: for training only
    group: str  # tiles of one group must not be parted
    sources: list[dict]  # as in a manifest, with paths that hold from anywhere


def write_tiles(
    tiles: Sequence[LabelledTile], folder: Path, *, licence: str, attribution: str
) -> None:
    """Write ``MANIFEST`` and ``LABELS`` into a folder.

    Args:
        tiles: of the set.
        folder: is made if it is not there.
        licence: of all tiles.
        attribution: of all tiles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = io.StringIO()
    labels = io.StringIO()
    table = csv.writer(labels, lineterminator="\n")
    table.writerow(("key", "label", "split", "group"))
    for tile in tiles:
        record = {
            "key": tile.key,
            "licence": licence,
            "attribution": attribution,
            "split": tile.split,
            "sources": tile.sources,
        }
        records.write(json.dumps(record) + "\n")
        if tile.label is not None:
            table.writerow((tile.key, tile.label, tile.split, tile.group))
    write_whole(folder / MANIFEST, records.getvalue())
    write_whole(folder / LABELS, labels.getvalue())
