"""Manifests and tile lists as tables, CSV or (Geo)Parquet: one row a source, the rows of a tile
share its key.

Everything becomes records as a JSON line has them; what they say is checked in manifest.py.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pyproj
import shapely
from pyproj.exceptions import CRSError
from shapely.errors import GEOSException

from data.errors import InputError
from data.suggest import did_you_mean

TILE = (
    "key",
    "licence",
    "attribution",
    "lon",
    "lat",
    "cells",
    "footprint",
)  # of the tile; the rest is of the source
Columns = dict[str, set[type]]  # a source's keys, and the types that readers give them


def csv_records(path: Path, columns: Columns) -> Iterator[tuple[str, dict]]:
    """A table as text. Lists are separated by ';', objects are JSON, a footprint is WKT in lon/lat."""
    forms = {name: _form(kinds) for name, kinds in columns.items()}
    return _tiles(
        (
            where,
            {
                name: _cell(value, forms[name], f"{where}: {name}") if name in forms else value
                for name, value in row.items()
            },
        )
        for where, row in csv_rows(path, {*TILE, *columns})
    )


def parquet_records(path: Path, columns: Columns) -> Iterator[tuple[str, dict]]:
    """A table with real types. In GeoParquet the geometry column is the tile's footprint."""
    return _tiles(parquet_rows(path, {*TILE, *columns}))


def csv_rows(path: Path, known: set[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """(file:line, row) with the cells that are not empty; lon, lat and cells are numbers, the
    footprint GeoJSON."""
    with path.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.reader(text, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                where = f"{path}:{reader.line_num}"
                if not header:
                    header = _header(cells, known, where)
                elif cells:
                    if len(cells) != len(header):
                        raise InputError(
                            f"{where}: expected {len(header)} cells as in the header, found {len(cells)}"
                        )
                    row = {name: cell.strip() for name, cell in zip(header, cells) if cell.strip()}
                    yield where, _spot_cells(row, where)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}:{reader.line_num + 1}: not a CSV table in UTF-8 ({error})"
            ) from None


def parquet_rows(path: Path, known: set[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """(file:row, row) with the cells that are not null; the geometry column becomes the footprint."""
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected a Parquet table, found a damaged or other file ({_line(error)})"
        ) from None
    with file:
        geometry, crs = _geometry_column(file.schema_arrow, path)
        _header(
            file.schema_arrow.names, known if geometry is None else known | {geometry}, str(path)
        )
        number = 0
        batches = file.iter_batches(4096)
        while True:
            try:
                rows = next(batches).to_pylist()
            except StopIteration:
                return
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                raise InputError(
                    f"{path}: row {number + 1} and those behind it are damaged ({_line(error)})"
                ) from None
            for row in rows:
                number += 1
                where = f"{path}:{number}"
                row = {name: value for name, value in row.items() if value is not None}
                if geometry in row:
                    row["footprint"] = _polygon(row.pop(geometry), crs, where)
                yield where, row


def spot_keys(row: dict) -> dict:
    """The columns lon, lat, cells and footprint of a row -> the keys centre, cells and footprint of
    a record."""
    spot = {key: row[key] for key in ("cells", "footprint") if key in row}
    if "lon" in row or "lat" in row:
        spot["centre"] = [row.get("lon"), row.get("lat")]
    return spot


def _tiles(rows: Iterator[tuple[str, dict]]) -> Iterator[tuple[str, dict]]:
    """One record a key, in the order in which the keys appear first; a cell of the tile may stand
    in any of its rows, and must not differ between them."""
    tiles: dict[str, dict] = {}
    for where, row in rows:
        if not isinstance(row.get("key"), str):
            raise InputError(f"{where}: key: expected the tile's name, found {row.get('key')!r}")
        tile = tiles.setdefault(row["key"], {"where": where, "sources": []})
        for name in TILE:
            if name in row and tile.setdefault(name, row[name]) != row[name]:
                raise InputError(
                    f"{where}: {name} is {row[name]!r}, an earlier row of tile {row['key']!r} says "
                    f"{tile[name]!r}"
                )
        tile["sources"].append({name: value for name, value in row.items() if name not in TILE})
    for tile in tiles.values():
        record = {
            name: tile[name]
            for name in ("key", "sources", "licence", "attribution")
            if name in tile
        }
        yield tile["where"], {**record, **spot_keys(tile)}


def _header(names: list[str], known: set[str], where: str) -> list[str]:
    """Column names: known and not repeated."""
    names = [name.strip() for name in names]
    for name in names:
        if name not in known:
            raise InputError(
                f"{where}: unknown column {name!r}{did_you_mean(name, known)}; known: {sorted(known)}"
            )
        if names.count(name) > 1:
            raise InputError(f"{where}: the column {name!r} stands there twice")
    if "key" not in names:
        raise InputError(f"{where}: expected a column 'key', found {names}")
    return names


def _spot_cells(row: dict[str, str], where: str) -> dict[str, object]:
    """Numbers and the footprint out of their text."""
    typed: dict[str, object] = dict(row)
    for name, kind in (("lon", float), ("lat", float), ("cells", int)):
        if name in row:
            typed[name] = _number(row[name], kind, f"{where}: {name}")
    if "footprint" in row:
        typed["footprint"] = _polygon(row["footprint"], None, where)
    return typed


def _form(kinds: set[type]) -> tuple[bool, str]:
    """(whether a cell of these types may be an object, what it is otherwise)."""
    shapes = {getattr(kind, "__origin__", kind) for kind in kinds}
    plain = (
        "numbers"
        if tuple[int, ...] in kinds
        else "list"
        if tuple in shapes
        else "number"
        if kinds & {float, float | None}
        else "text"
    )
    return dict in shapes or str | dict in kinds, plain


def _cell(text: str, form: tuple[bool, str], where: str) -> object:
    """One cell of text. An object begins with a brace; a list has items between semicolons."""
    if form[0] and text.startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error})") from None
    if form[1] == "numbers":
        return [_number(part, int, where) for part in text.split(";")]
    if form[1] == "list":
        return [part.strip() for part in text.split(";")]
    return _number(text, float, where) if form[1] == "number" else text


def _number(text: str, kind: type, where: str) -> float | int:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{where}: expected {what}, found {text[:60]!r}") from None


def _geometry_column(schema: pyarrow.Schema, path: Path) -> tuple[str | None, str | None]:
    """(name of the primary geometry column, its CRS as WKT or None for lon/lat) of GeoParquet;
    None, None of a plain table."""
    text = (schema.metadata or {}).get(b"geo")
    if text is None:
        return None, None
    try:
        geo = json.loads(text)
        name = geo["primary_column"]
        column = geo["columns"][name]
        encoding, crs = column["encoding"], column.get("crs", "OGC:CRS84")
        found = pyproj.CRS.from_user_input(crs)
    except (ValueError, KeyError, TypeError, AttributeError, CRSError) as error:
        raise InputError(
            f"{path}: expected GeoParquet metadata with a primary column and a CRS that can be read "
            f"({_line(error)})"
        ) from None
    if encoding != "WKB" or name not in schema.names:
        raise InputError(
            f"{path}: geometry column {name!r}: expected one in WKB, found {encoding!r}"
        )
    return name, None if found.equals("OGC:CRS84") or found.to_epsg() == 4326 else found.to_wkt()


def _polygon(shape: bytes | str, crs: str | None, where: str) -> dict:
    """WKB or WKT -> GeoJSON, with the CRS beside the coordinates unless it is lon/lat."""
    try:
        found = shapely.from_wkb(shape) if isinstance(shape, bytes) else shapely.from_wkt(shape)
        geometry = dict(shapely.geometry.mapping(found))
    except (GEOSException, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{where}: footprint: expected a polygon in {'WKB' if isinstance(shape, bytes) else 'WKT'}, "
            f"found {str(shape)[:60]!r}"
        ) from None
    return geometry if crs is None else {**geometry, "crs": crs}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
