"""Manifests and tile lists as tables, CSV or (Geo)Parquet.

A row is a source, and the rows of a tile share its key. All become records as a line of JSON has
them; what they say is checked in records.py.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import pyarrow
import pyarrow.parquet
import pyproj
import shapely
from pyproj.exceptions import CRSError
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.contract.bands import BandKeys
from data.prepare.manifest.entry import Record
from data.prepare.manifest.mistakes import Mistakes
from data.suggest import did_you_mean

BATCH = 4096  # rows of a Parquet file
NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}
PARQUET_ERRORS = (pyarrow.ArrowException, OSError, ValueError)

Columns = dict[str, set]  # a source's keys, and the types that readers give them
Row = tuple[str, dict]  # its place in the file, and its cells by column


@dataclass(frozen=True)
class CellForm:
    """How the cells of a column are read from text."""

    parse: Callable[[str], Any]  # str, int, float, or of WKT
    is_list: bool = False  # items between semicolons
    may_be_object: bool = False  # a cell that begins with a brace is JSON


def csv_records(path: Path, columns: Columns, mistakes: Mistakes) -> Iterator[Record]:
    """The records of a table as text.

    Lists are separated by ';', objects are JSON, a footprint is WKT in lon/lat.
    """
    forms = {**TILE_FORMS, **{name: _form(kinds) for name, kinds in columns.items()}}
    return _tiles(csv_rows(path, forms, mistakes), mistakes)


def parquet_records(path: Path, columns: Columns, mistakes: Mistakes) -> Iterator[Record]:
    """The records of a table with types. In GeoParquet the geometry is the tile's footprint."""
    return _tiles(parquet_rows(path, {*TILE_FORMS, *columns}, mistakes), mistakes)


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
        reader = csv.reader(text, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if not header:
                    header = _header(cells, set(forms), where)
                    continue
                row, faults = _csv_row(header, cells, forms)
                mistakes.add(where, *faults)
                if row and not faults:
                    yield where, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}:{reader.line_num + 1}: not a CSV table in UTF-8 ({error})"
            ) from None


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
            row[name] = _cell(text, forms[name])
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return row, faults


def parquet_rows(path: Path, known: set[str], mistakes: Mistakes) -> Iterator[Row]:
    """Read a Parquet table whose columns are among ``known``, or the primary geometry.

    Args:
        path: the table.
        known: its columns.
        mistakes: takes geometries that are none.

    Yields:
        'file:row' and the cells that are not null, for each row without a mistake. The geometry
        becomes the footprint.

    Raises:
        InputError: other columns, or a damaged or other file.
    """
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except PARQUET_ERRORS as error:
        raise InputError(
            f"{path}: expected a Parquet table, found a damaged or other file ({one_line(error)})"
        ) from None
    with file:
        geometry, crs = _geometry_column(file.schema_arrow, path)
        if geometry is not None:
            known = known | {geometry}
        _header(file.schema_arrow.names, known, str(path))
        for number, cells in enumerate(_parquet_cells(file, path), 1):
            where = f"{path}:{number}"
            row = {name: value for name, value in cells.items() if value is not None}
            if geometry in row:
                try:
                    row["footprint"] = _polygon(row.pop(geometry), crs)
                except ValueError as error:
                    mistakes.add(where, f"footprint: {error}")
                    continue
            yield where, row


def _parquet_cells(file: pyarrow.parquet.ParquetFile, path: Path) -> Iterator[dict]:
    """The cells of each row of an open file."""
    count = 0
    batches = file.iter_batches(BATCH)
    while True:
        try:
            rows = next(batches).to_pylist()
        except StopIteration:
            return
        except PARQUET_ERRORS as error:
            raise InputError(
                f"{path}: row {count + 1} and those behind it are damaged ({one_line(error)})"
            ) from None
        yield from rows
        count += len(rows)


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
        names = ("key", "licence", "attribution")
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


def _header(names: list[str], known: set[str], where: str) -> list[str]:
    """Column names; InputError unless each is known and stands there once."""
    names = [name.strip() for name in names]
    for name in names:
        if name not in known:
            raise InputError(
                f"{where}: unknown column {name!r}{did_you_mean(name, known)}; "
                f"known: {sorted(known)}"
            )
        if names.count(name) > 1:
            raise InputError(f"{where}: the column {name!r} stands there twice")
    if "key" not in names:
        raise InputError(f"{where}: expected a column 'key', found {names}")
    return names


def _form(kinds: set) -> CellForm:
    """How the cells of a key are read that has these types among the readers."""
    if BandKeys in kinds:
        kinds = {*kinds, *get_args(BandKeys)}
    origins = {get_origin(kind) for kind in kinds}
    is_list = tuple in origins
    parse: Callable[[str], Any] = str
    if tuple[int, ...] in kinds:
        parse = int
    elif not is_list and kinds & {float, float | None}:
        parse = float
    may_be_object = dict in origins or bool(kinds & {dict, str | dict})
    return CellForm(parse, is_list=is_list, may_be_object=may_be_object)


def _cell(text: str, form: CellForm) -> object:
    """One cell of text; ValueError says what was expected and found."""
    if form.may_be_object and text.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not valid JSON ({error})") from None
    if form.is_list:
        return [_parsed(item.strip(), form.parse) for item in text.split(";")]
    return _parsed(text, form.parse)


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    """Text as ``parse`` makes it: int, float, str, or a polygon of WKT."""
    if parse not in NUMBERS:
        return parse(text)
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"expected {NUMBERS[parse]}, found {text[:60]!r}") from None


def _geometry_column(schema: pyarrow.Schema, path: Path) -> tuple[str | None, str | None]:
    """The primary geometry column of GeoParquet, and its CRS.

    Returns:
        The name, None for a plain table; and the CRS as WKT, None for lon/lat.
    """
    metadata = schema.metadata
    if metadata is None or b"geo" not in metadata:
        return None, None
    try:
        geo = json.loads(metadata[b"geo"])
        name = geo["primary_column"]
        column = geo["columns"][name]
        encoding = column["encoding"]
        crs = pyproj.CRS.from_user_input(column.get("crs", "OGC:CRS84"))
    except (ValueError, KeyError, TypeError, AttributeError, CRSError) as error:
        raise InputError(
            f"{path}: expected GeoParquet metadata with a primary column and a CRS that can be "
            f"read ({one_line(error)})"
        ) from None
    if encoding != "WKB" or name not in schema.names:
        raise InputError(
            f"{path}: geometry column {name!r}: expected one in WKB, found {encoding!r}"
        )
    if crs.equals("OGC:CRS84") or crs.to_epsg() == 4326:
        return name, None
    return name, crs.to_wkt()


def _polygon(encoded: bytes | str, crs: str | None = None) -> dict:
    """WKB or WKT -> GeoJSON, with the CRS beside the coordinates unless it is lon/lat.

    Raises:
        ValueError: what was expected and found.
    """
    try:
        if isinstance(encoded, bytes):
            encoding = "WKB"
            shape = shapely.from_wkb(encoded)
        else:
            encoding = "WKT"
            shape = shapely.from_wkt(encoded)
        geometry = dict(shapely.geometry.mapping(shape))
    except (GEOSException, TypeError, ValueError, AttributeError):
        raise ValueError(f"expected a polygon in {encoding}, found {str(encoded)[:60]!r}") from None
    if crs is not None:
        geometry["crs"] = crs
    return geometry


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


# The columns of the tile. The others are of the source.
TILE_FORMS = {
    "key": CellForm(str),
    "licence": CellForm(str),
    "attribution": CellForm(str),
    "lon": CellForm(float),
    "lat": CellForm(float),
    "cells": CellForm(int),
    "footprint": CellForm(_polygon),
}
