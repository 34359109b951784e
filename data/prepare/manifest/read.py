"""The manifest of a preparation run: which sources make which tile. docs/manifest.md has all forms
and keys.

    {"key": "...", "licence": "...", "attribution": "...", "sources": [{"reader": "geotiff_image",
     "path": "a.tif", "modality": "hr", "bands": ["R", "G", "B"], ...}, ...]}

A reader's fields are its keys; paths are relative to the manifest. A new format is one class in
READERS. Every form of manifest becomes such records, so all are checked here, once.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path

from data.errors import InputError
from data.prepare.contract.source import File, Reader, Remote
from data.prepare.contract.spot import Spot, spot_of
from data.prepare.manifest.stac import stac_records
from data.prepare.manifest.table import csv_records, parquet_records
from data.prepare.readers.cube import NetcdfCube, ZarrCube
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from data.prepare.readers.hdf5_series import Hdf5Series
from data.prepare.readers.netcdf_series import NetcdfLabels, NetcdfOptical, NetcdfSar
from data.prepare.readers.raster_labels import GeoTiffLabels
from data.prepare.readers.sentinel2_safe import Sentinel2Safe
from data.prepare.readers.vector_labels import VectorLabels
from data.prepare.readers.web_tiles import WebTiles
from data.suggest import did_you_mean
from data.tiles.archive import KEY

READERS = {
    "geotiff_image": GeoTiffImage,
    "geotiff_bands": GeoTiffBands,
    "geotiff_labels": GeoTiffLabels,
    "sentinel2_safe": Sentinel2Safe,
    "hdf5_series": Hdf5Series,
    "netcdf_optical": NetcdfOptical,
    "netcdf_sar": NetcdfSar,
    "netcdf_labels": NetcdfLabels,
    "netcdf_cube": NetcdfCube,
    "zarr_cube": ZarrCube,
    "web_tiles": WebTiles,
    "osm": VectorLabels,
    "geojson_labels": VectorLabels,
}
ENTRY = {
    "key": str,
    "sources": list,
    "licence": str,
    "attribution": str,
    "centre": list,
    "cells": int,
    "footprint": dict,
}
# of a reader's field: what JSON must hold, and what the items of a list or object must be
TYPES = {
    str: ((str,), None),
    dict: ((dict,), None),
    str | dict: ((str, dict), None),
    float: ((int, float), None),
    float | None: ((int, float), None),
    Path: ((str,), None),
    File: ((str,), None),
    File | None: ((str,), None),
    tuple[str, ...]: ((list,), str),
    tuple[int, ...]: ((list,), int),
    tuple[Path, ...]: ((list,), str),
    dict[str, str]: ((dict,), str),
    dict[str, File]: ((dict,), str),
}
FILES = (Path, File, File | None, tuple[Path, ...], dict[str, File])
REMOTE = re.compile(r"/vsi|[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Entry:
    """A tile to be made."""

    key: str
    readers: tuple[Reader, ...]
    licence: str
    attribution: str
    spot: Spot | None = None  # None: the sources say where it lies


def read_manifest(path: str | Path, tiles: str | Path | None = None) -> list[Entry]:
    """All entries, in the order of the file. The suffix tells the form: .jsonl, .csv, .parquet or
    .geoparquet, .json or .geojson (a STAC item collection, which needs ``tiles``: a list of the
    tiles to be cut from it).

    Raises InputError, with file and line, for anything unknown, missing, repeated or of a wrong
    type. Files that the sources name are not looked at: a reader's check does that."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a manifest, found no such file")
    entries, seen = [], {}
    for where, record in _records(path, None if tiles is None else Path(tiles)):
        entry = _entry(record, where, path.parent)
        if entry.key in seen:
            earlier = seen[entry.key].rpartition(":")[2].strip()
            raise InputError(
                f"{where}: key {entry.key!r} stands on {'line ' * earlier.isdigit()}{earlier} already"
            )
        seen[entry.key] = where
        entries.append(entry)
    if not entries:
        raise InputError(f"{path}: expected at least one tile, found an empty manifest")
    return entries


def _records(path: Path, tiles: Path | None) -> Iterator[tuple[str, dict]]:
    """(place in the file, record as of one JSON line) by the form that the suffix tells."""
    form = path.suffix.lower()
    if form in (".json", ".geojson"):
        if tiles is None:
            raise InputError(
                f"{path}: a STAC item collection says what was acquired, not which tiles to make; give a "
                "list of tiles too"
            )
        return stac_records(path, tiles, _reader)
    if tiles is not None:
        raise InputError(
            f"{path}: names its tiles itself; a list of tiles ({tiles}) goes with a STAC item collection"
        )
    if form == ".csv":
        return csv_records(path, columns())
    if form in (".parquet", ".geoparquet"):
        return parquet_records(path, columns())
    if form != ".jsonl":
        raise InputError(
            f"{path}: expected a manifest that ends in .jsonl, .csv, .parquet, .geoparquet, .json or "
            f".geojson, found {form!r}"
        )
    return _json_lines(path)


def _json_lines(path: Path) -> Iterator[tuple[str, dict]]:
    """One record a line."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                yield where, json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{where}: not valid JSON ({error.msg}, column {error.colno})"
                ) from None
            except (
                UnicodeDecodeError,
                RecursionError,
                ValueError,
            ) as error:  # bytes, nesting or digits without end
                raise InputError(f"{where}: not valid JSON ({type(error).__name__})") from None


def _entry(record: dict, where: str, folder: Path) -> Entry:
    """One record -> Entry."""
    _check_keys(record, ENTRY, {"key", "sources", "licence", "attribution"}, where)
    if not KEY.fullmatch(record["key"]):
        raise InputError(
            f"{where}: key {record['key']!r}: expected letters, digits, '_' and '-' only"
        )
    if not record["sources"]:
        raise InputError(f"{where}: expected at least one source, found none")
    made = tuple(READERS.values())  # readers of a STAC item are shared by its tiles
    readers = tuple(
        source if isinstance(source, made) else _reader(source, f"{where}: sources[{i}]", folder)
        for i, source in enumerate(record["sources"])
    )
    return Entry(
        record["key"], readers, record["licence"], record["attribution"], spot_of(record, where)
    )


def _reader(source: dict, where: str, folder: Path) -> Reader:
    """One source object -> its reader, paths resolved."""
    name = source.get("reader") if isinstance(source, dict) else None
    if not isinstance(name, str) or name not in READERS:
        raise InputError(
            f"{where}: reader {name!r} is unknown{did_you_mean(str(name), READERS)}; "
            f"expected one of {sorted(READERS)}"
        )
    kinds, required = options_of(READERS[name])
    options = {key: value for key, value in source.items() if key != "reader"}
    _check_keys(options, {key: TYPES[kind][0] for key, kind in kinds.items()}, required, where)
    for key, value in options.items():
        options[key] = _option(value, kinds[key], f"{where}: {key}", folder)
    return READERS[name](**options)


@cache
def options_of(reader: type) -> tuple[dict[str, type], set[str]]:
    """A reader's keys with their types, and which of them are needed."""
    return (
        {field.name: field.type for field in fields(reader)},
        {
            field.name
            for field in fields(reader)
            if field.default is MISSING and field.default_factory is MISSING
        },
    )


def columns() -> dict[str, set[type]]:
    """Every key of every reader, with the types that it has among them: the columns of a table of
    sources."""
    found: dict[str, set[type]] = {"reader": {str}}
    for reader in READERS.values():
        for key, kind in options_of(reader)[0].items():
            found.setdefault(key, set()).add(kind)
    return found


def _option(value: object, kind: type, where: str, folder: Path) -> object:
    """A value of JSON as the reader's field wants it; ``where`` ends in the key."""
    item = TYPES[kind][1]
    if item is not None:
        parts = list(value.values()) if isinstance(value, dict) else value
        if not (
            parts and all(isinstance(part, item) and not isinstance(part, bool) for part in parts)
        ):
            raise InputError(
                f"{where}: expected a list or object of {'names' if item is str else 'whole numbers'}, "
                f"found {str(value)[:100]}"
            )
    local = kind in (Path, tuple[Path, ...])
    place = (
        (lambda text: _file(text, where, folder, local)) if kind in FILES else (lambda part: part)
    )
    if isinstance(value, dict):
        return {key: place(part) for key, part in value.items()}
    if isinstance(value, list):
        return tuple(place(part) for part in value)
    return place(value)


def _check_keys(
    record: dict, types: dict[str, type | tuple[type, ...]], required: set[str], where: str
) -> None:
    """Every key known and of its type, every required key there."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
    for key, value in record.items():
        if key not in types:
            raise InputError(
                f"{where}: unknown key {key!r}{did_you_mean(key, types)}; known: {sorted(types)}"
            )
        kinds = types[key] if isinstance(types[key], tuple) else (types[key],)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InputError(
                f"{where}: {key}: expected {' or '.join(kind.__name__ for kind in kinds)}, "
                f"found {type(value).__name__}"
            )
    missing = sorted(required - set(record))
    if missing:
        raise InputError(f"{where}: missing {missing}")


def _file(text: str, where: str, folder: Path, local: bool) -> File:
    """A path relative to the manifest's folder, or, unless it must be ``local``, an address as it
    is."""
    if not text or "\0" in text:
        raise InputError(f"{where}: expected the path of a file, found {text!r}")
    if not REMOTE.match(text):
        return folder / text
    if local:
        raise InputError(
            f"{where}: this reader takes files of the file system only, found {text!r}; fetch it first"
        )
    return Remote(text)
