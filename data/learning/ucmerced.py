"""UC Merced Land Use: aerial pictures of 21 classes, 0.3 m a pixel (Yang and Newsam 2010).

``root/labels.csv`` has the columns ``file``, ``class``, ``number``, ``split`` and
``overlap_group``: pictures that show common ground form a group. Neighbours in the numbering are
cut from one image, so the parts are ranges of numbers, and the last pictures of the train part have
no label: a probe would find the first of the validation part by their images. The validation part
lies between train and test part.
"""

import csv
from pathlib import Path

from data.errors import InputError
from data.learning.tiles import LabelledTile, write_tiles
from data.tiles.splits import TEST, TRAIN, VALIDATION

GSD = 0.3  # metres a pixel
COLUMNS = {"file", "class", "number", "split", "overlap_group"}
FIRST_WITHOUT_LABEL = 65
FIRST_OF_VALIDATION = 70


def write(root: Path, folder: Path) -> None:
    """Write manifest and labels of the set in ``root`` into ``folder``.

    Raises:
        InputError: the table is not there, or lacks a column.
    """
    rows = read_table(root, COLUMNS)
    trained = {row["overlap_group"] for row in rows if int(row["number"]) < FIRST_OF_VALIDATION}
    tiles = [_tile(root, row, trained - {""}) for row in rows]
    write_tiles(
        tiles, folder, licence="US public domain", attribution="USGS National Map; UC Merced"
    )


def read_table(root: Path, columns: set[str]) -> list[dict[str, str]]:
    """The rows of ``root/labels.csv``.

    Raises:
        InputError: it is not there, or lacks one of ``columns``.
    """
    path = root / "labels.csv"
    if not path.is_file():
        raise InputError(f"{path}: expected a table of labels, found none; check the folder")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = sorted(columns - set(rows[0] if rows else ()))
    if missing:
        raise InputError(f"{path}: expected the columns {sorted(columns)}, lacks {missing}")
    return rows


def _tile(root: Path, row: dict[str, str], trained: set[str]) -> LabelledTile:
    """A picture; ``trained``: the groups of the first numbers, which stay for training."""
    path = root / row["file"]
    source = {
        "reader": "patch",
        "path": str(path.resolve()),
        "modality": "hr",
        "bands": ["R", "G", "B"],
        "gsd": GSD,
        "pixels": "keep",
    }
    label: str | None = row["class"]
    if FIRST_WITHOUT_LABEL <= int(row["number"]) < FIRST_OF_VALIDATION:
        label = None
    return LabelledTile(
        key=path.stem,
        split=_split(row, trained),
        label=label,
        group=row["overlap_group"] or path.stem,
        sources=[source],
    )


def _split(row: dict[str, str], trained: set[str]) -> str:
    if row["split"] == TEST:
        return TEST
    if int(row["number"]) < FIRST_OF_VALIDATION or row["overlap_group"] in trained:
        return TRAIN
    return VALIDATION
