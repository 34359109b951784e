"""Manifests as tables: a row is a source, and the rows of a tile share its key.

All become records as a line of JSON has them; what they say is checked in records.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.manifest.cells import TILE_FORMS, Row, form_of
from data.prepare.manifest.csv_table import csv_rows
from data.prepare.manifest.entry import Record
from data.prepare.manifest.mistakes import Mistakes
from data.prepare.manifest.parquet_table import parquet_rows

Columns = dict[str, set]  # a source's keys, and the types that readers give them


def table_records(path: Path, columns: Columns, mistakes: Mistakes) -> Iterator[Record]:
    """The records of a table.

    In text, lists are separated by ';', objects are JSON, a footprint is WKT in lon/lat. In
    GeoParquet the geometry is the tile's footprint.

    Args:
        path: the table; .csv is text, anything else Parquet.
        columns: of the sources.
        mistakes: takes rows and cells that are none.

    Raises:
        InputError: the table has other columns or is damaged, or a row has a mistake.
    """
    forms = {**TILE_FORMS, **{name: form_of(kinds) for name, kinds in columns.items()}}
    read_rows = parquet_rows
    if path.suffix.lower() == ".csv":
        read_rows = csv_rows
    return _tiles(read_rows(path, forms, mistakes), mistakes)


def spot_keys(row: dict) -> dict:
    """The keys centre, cells and footprint of a record, from the columns of a row."""
    spot = {key: row[key] for key in ("cells", "footprint") if key in row}
    if "lon" in row or "lat" in row:
        spot["centre"] = [row.get("lon"), row.get("lat")]
    return spot


@dataclass
class _Tile:
    """The rows of one key."""

    cells: dict[str, object] = field(default_factory=dict)  # of the tile, by column
    sources: list[dict] = field(default_factory=list)
    places: list[str] = field(default_factory=list)  # of the rows

    def record(self) -> Record:
        """The tile as a line of JSON would have it."""
        names = ("key", "licence", "attribution", "split", "scene")
        keys = {name: self.cells[name] for name in names if name in self.cells}
        keys = {**keys, "sources": self.sources, **spot_keys(self.cells)}
        return Record(self.places[0], keys, tuple(self.places))


def _tiles(rows: Iterator[Row], mistakes: Mistakes) -> Iterator[Record]:
    """One record a key, in the order in which the keys appear first.

    A cell of the tile may stand in any of its rows, and must not differ between them.

    Raises:
        InputError: a row has a mistake.
    """
    tiles: dict[str, _Tile] = {}
    for where, row in rows:
        key = row.get("key")
        if not isinstance(key, str):
            mistakes.add(where, f"key: expected the tile's name, found {key!r}")
            continue
        tile = tiles.setdefault(key, _Tile())
        source = dict(row)
        for name in TILE_FORMS:
            if name not in source:
                continue
            value = source.pop(name)
            earlier = tile.cells.setdefault(name, value)
            if earlier != value:
                mistakes.add(
                    where, f"{name} is {value!r}, an earlier row of tile {key!r} says {earlier!r}"
                )
        tile.sources.append(source)
        tile.places.append(where)
    # A row that is left out would make its tile look as if it lacked something.
    mistakes.check()
    for tile in tiles.values():
        yield tile.record()
