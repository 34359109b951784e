"""Labels of tiles from a CSV file: which classes a tile has, what it is for, and its group."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError
from data.tiles.splits import SPLITS, VALIDATION

KEY = "key"
LABEL = "label"
SPLIT = "split"
GROUP = "group"
SEPARATOR = ";"  # between the classes of a tile that has several
SHORT_NAMES = {"val": VALIDATION, "valid": VALIDATION}


@dataclass(frozen=True)
class TileLabel:
    """A line of the file."""

    classes: tuple[str, ...]
    split: str  # of ``SPLITS``; empty: as the shards say
    group: str  # tiles of one group are on one side of every split; empty: the file says none


@dataclass(frozen=True)
class Labels:
    """All lines of a file."""

    of: Mapping[str, TileLabel]  # by the tile's key
    classes: list[str]  # sorted
    several: bool  # a tile may have any number of classes

    @property
    def has_groups(self) -> bool:
        """Whether the file names groups."""
        return any(label.group for label in self.of.values())


def read_labels(path: Path) -> Labels:
    """Read ``key,label[,split][,group]``; other columns are left alone.

    The classes of a tile with several are joined by ";". A file with such a line, or with a tile
    without any class, is one of several classes a tile.

    Raises:
        InputError: a column is missing, a key stands twice, or a split is unknown.
    """
    if not path.is_file():
        raise InputError(f"--labels: expected a CSV file, found no such file {path}")
    labels: dict[str, TileLabel] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        for name in (KEY, LABEL):
            if name not in columns:
                raise InputError(
                    f"{path}: expected the columns {KEY},{LABEL}[,{SPLIT}][,{GROUP}], found "
                    f"{','.join(columns) or 'an empty file'}; name the column {name!r}"
                )
        for row in reader:
            key = row[KEY]
            where = f"{path}, line {reader.line_num}"
            if key in labels:
                raise InputError(f"{where}: the key {key!r} stands twice; keep one of the lines")
            labels[key] = _label(row, where)
    if not labels:
        raise InputError(f"{path}: expected a line for each tile, found none")
    classes: set[str] = set()
    for label in labels.values():
        classes.update(label.classes)
    several = any(len(label.classes) != 1 for label in labels.values())
    return Labels(labels, sorted(classes), several)


def _label(row: Mapping[str, str | None], where: str) -> TileLabel:
    """One line of the file."""
    names = [name.strip() for name in (row[LABEL] or "").split(SEPARATOR)]
    split = (row.get(SPLIT) or "").strip()
    split = SHORT_NAMES.get(split, split)
    if split and split not in SPLITS:
        raise InputError(f"{where}: {SPLIT}: expected one of {', '.join(SPLITS)}, found {split!r}")
    group = (row.get(GROUP) or "").strip()
    return TileLabel(tuple(name for name in names if name), split, group)
