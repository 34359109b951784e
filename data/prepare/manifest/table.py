"""Manifests and tile lists as tables, CSV or (Geo)Parquet.

A row is a source, and the rows of a tile share its key. All become records as a line of JSON has
them; what they say is checked in records.py.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import pyarrow
import pyarrow.parquet
import pyproj
import shapely
from pyproj.exceptions import CRSError
from shapely.errors import GEOSException

from data.errors import InputError
from data.suggest import did_you_mean

# Columns of the tile. The others are of the source.
TILE_COLUMNS = ("key", "licence", "attribution", "lon", "lat", "cells", "footprint")
BATCH = 4096  # rows of a Parquet file
PARQUET_ERRORS = (pyarrow.ArrowException, OSError, ValueError)

Columns = dict[str, set]  # a source's keys, and the types that readers give them
Row = tuple[str, dict]  # its place in the file, and its cells by column


@dataclass(frozen=True)
class CellForm:
    """How the cells of a column are read from text."""

    parse: Callable[[str], Any]  # str, int or float
    is_list: bool  # items between semicolons
    may_be_object: bool  # a cell that begins with a brace is JSON


def csv_records(path: Path, columns: Columns) -> Iterator[Row]:
    """The records of a table as text.

    Lists are separated by ';', objects are JSON, a footprint is WKT in lon/lat.
    """
    return _tiles(_typed_rows(path, columns))


def _typed_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a CSV manifest with the types of the readers' keys."""
    forms = {name: _form(kinds) for name, kinds in columns.items()}
    for where, row in csv_rows(path, {*TILE_COLUMNS, *columns}):
        typed = {}
        for name, value in row.items():
            if name in forms:
                value = _cell(value, forms[name], f"{where}: {name}")
            typed[name] = value
        yield where, typed


def parquet_records(path: Path, columns: Columns) -> Iterator[Row]:
    """The records of a table with types. In GeoParquet the geometry is the tile's footprint."""
    return _tiles(parquet_rows(path, {*TILE_COLUMNS, *columns}))


def csv_rows(path: Path, known: set[str]) -> Iterator[Row]:
    """Read a CSV table whose columns are among ``known``.

    Yields:
        'file:line' and the cells that are not empty. lon, lat and cells are numbers, the footprint
        is GeoJSON, the others are text.

    Raises:
        InputError: other columns, rows of another length, or no CSV table in UTF-8.
    """
    with path.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.reader(text, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if not header:
                    header = _header(cells, known, where)
                elif cells:
                    yield where, _csv_row(header, cells, where)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}:{reader.line_num + 1}: not a CSV table in UTF-8 ({error})"
            ) from None


def _csv_row(header: list[str], cells: list[str], where: str) -> dict[str, object]:
    """The cells of a line that are not empty."""
    if len(cells) != len(header):
        raise InputError(
            f"{where}: expected {len(header)} cells as in the header, found {len(cells)}"
        )
    row: dict[str, object] = {}
    for name, cell in zip(header, cells):
        text = cell.strip()
        if not text:
            continue
        if name in ("lon", "lat"):
            row[name] = _parsed(text, float, f"{where}: {name}")
        elif name == "cells":
            row[name] = _parsed(text, int, f"{where}: {name}")
        elif name == "footprint":
            row[name] = _polygon(text, None, where)
        else:
            row[name] = text
    return row


def parquet_rows(path: Path, known: set[str]) -> Iterator[Row]:
    """Read a Parquet table whose columns are among ``known``, or the primary geometry.

    Yields:
        'file:row' and the cells that are not null. The geometry becomes the footprint.

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
                row["footprint"] = _polygon(row.pop(geometry), crs, where)
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


def _tiles(rows: Iterator[Row]) -> Iterator[Row]:
    """One record a key, in the order in which the keys appear first.

    A cell of the tile may stand in any of its rows, and must not differ between them.
    """
    tiles: dict[str, dict] = {}
    sources: dict[str, list[dict]] = {}
    places: dict[str, str] = {}
    for where, row in rows:
        key = row.get("key")
        if not isinstance(key, str):
            raise InputError(f"{where}: key: expected the tile's name, found {key!r}")
        if key not in tiles:
            tiles[key] = {}
            sources[key] = []
            places[key] = where
        source = dict(row)
        for name in TILE_COLUMNS:
            if name in source:
                _merge(tiles[key], name, source.pop(name), where)
        sources[key].append(source)
    for key, tile in tiles.items():
        record = {name: tile[name] for name in ("key", "licence", "attribution") if name in tile}
        yield places[key], {**record, "sources": sources[key], **spot_keys(tile)}


def _merge(tile: dict, name: str, value: object, where: str) -> None:
    """Add a cell of the tile; InputError when an earlier row says something else."""
    earlier = tile.setdefault(name, value)
    if earlier != value:
        raise InputError(
            f"{where}: {name} is {value!r}, an earlier row of tile {tile['key']!r} says {earlier!r}"
        )


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
    origins = {get_origin(kind) for kind in kinds}
    is_list = tuple in origins
    parse: Callable[[str], Any] = str
    if tuple[int, ...] in kinds:
        parse = int
    elif not is_list and kinds & {float, float | None}:
        parse = float
    may_be_object = dict in origins or bool(kinds & {dict, str | dict})
    return CellForm(parse, is_list=is_list, may_be_object=may_be_object)


def _cell(text: str, form: CellForm, where: str) -> object:
    """One cell of text."""
    if form.may_be_object and text.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error})") from None
    if form.is_list:
        return [_parsed(item.strip(), form.parse, where) for item in text.split(";")]
    return _parsed(text, form.parse, where)


def _parsed(text: str, parse: Callable[[str], Any], where: str) -> Any:
    """Text as ``parse`` makes it: int, float or str."""
    try:
        return parse(text)
    except ValueError:
        expected = "a number"
        if parse is int:
            expected = "a whole number"
        raise InputError(f"{where}: expected {expected}, found {text[:60]!r}") from None


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


def _polygon(encoded: bytes | str, crs: str | None, where: str) -> dict:
    """WKB or WKT -> GeoJSON, with the CRS beside the coordinates unless it is lon/lat."""
    try:
        if isinstance(encoded, bytes):
            encoding = "WKB"
            shape = shapely.from_wkb(encoded)
        else:
            encoding = "WKT"
            shape = shapely.from_wkt(encoded)
        geometry = dict(shapely.geometry.mapping(shape))
    except (GEOSException, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{where}: footprint: expected a polygon in {encoding}, found {str(encoded)[:60]!r}"
        ) from None
    if crs is not None:
        geometry["crs"] = crs
    return geometry


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
