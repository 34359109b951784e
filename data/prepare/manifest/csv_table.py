"""Tables as text: CSV, separated by commas, semicolons or tabs."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from data.errors import InputError
from data.prepare.manifest.cells import CellForm, Row, cell_of_text, check_header
from data.prepare.manifest.mistakes import Mistakes

SEPARATORS = (",", ";", "\t")


def csv_rows(path: Path, forms: Mapping[str, CellForm], mistakes: Mistakes) -> Iterator[Row]:
    """Read a CSV table whose columns have these forms.

    Args:
        path: the table.
        forms: by column.
        mistakes: takes rows of another length, and cells of another form.

    Yields:
        'file:line' and the cells that are not empty, for each row without a mistake.

    Raises:
        InputError: other columns, or no CSV table in UTF-8.
    """
    with path.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.reader(text, strict=True, delimiter=_separator(text, forms))
        header: list[str] = []
        try:
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if not header:
                    header = check_header(cells, set(forms), where)
                    continue
                row, faults = _csv_row(header, cells, forms)
                mistakes.add(where, *faults)
                if row and not faults:
                    yield where, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}:{reader.line_num + 1}: not a CSV table in UTF-8 ({error})"
            ) from None


def _separator(text: TextIO, known: Mapping[str, CellForm]) -> str:
    """What separates the cells: that which gives most known columns in the first line."""
    try:
        line = text.readline()
    except UnicodeDecodeError:
        return SEPARATORS[0]  # reading on will tell
    finally:
        text.seek(0)

    def columns(separator: str) -> int:
        return sum(name.strip().strip('"') in known for name in line.split(separator))

    return max(SEPARATORS, key=columns)


def _csv_row(
    header: list[str], cells: list[str], forms: Mapping[str, CellForm]
) -> tuple[dict[str, object], list[str]]:
    """The cells of a line that are not empty, and what is wrong with others."""
    if not cells:
        return {}, []
    if len(cells) != len(header):
        return {}, [f"expected {len(header)} cells as in the header, found {len(cells)}"]
    row: dict[str, object] = {}
    faults = []
    for name, cell in zip(header, cells):
        text = cell.strip()
        if not text:
            continue
        try:
            row[name] = cell_of_text(text, forms[name])
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return row, faults
