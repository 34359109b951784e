"""The manifest of a preparation run: JSON lines, one tile a line, strict.

    {"key": "...", "licence": "...", "attribution": "...",
     "sources": [{"reader": "geotiff_image", "path": "a.tif", "modality": "hr", "bands": ["R", "G", "B"], ...}, ...]}

A reader's fields are its keys; paths are relative to the manifest. A new format is one class in READERS.
"""

import difflib
import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from data.archive import KEY
from data.errors import InputError
from data.prepare.geotiff import GeoTiffImage, GeoTiffLabels
from data.prepare.hdf5_series import Hdf5Series
from data.prepare.netcdf_series import NetcdfLabels, NetcdfOptical, NetcdfSar
from data.prepare.source import Reader
from data.prepare.web_tiles import GeoJsonLabels, WebTiles

READERS = {
    "geotiff_image": GeoTiffImage, "geotiff_labels": GeoTiffLabels, "hdf5_series": Hdf5Series,
    "netcdf_optical": NetcdfOptical, "netcdf_sar": NetcdfSar, "netcdf_labels": NetcdfLabels,
    "web_tiles": WebTiles, "geojson_labels": GeoJsonLabels,
}
JSON_TYPES = {str: str, Path: str, Path | None: str, dict: dict, tuple[str, ...]: list, tuple[Path, ...]: list}


@dataclass(frozen=True)
class Entry:
    """One line: a tile to be made."""

    key: str
    readers: tuple[Reader, ...]
    licence: str
    attribution: str


def read_manifest(path: str | Path) -> list[Entry]:
    """All entries. Raises InputError, with the line, for anything unknown, missing, repeated or of a wrong type."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a manifest in JSON lines, found no such file")
    entries, seen = [], {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from None
        entry = _entry(record, where, path.parent)
        if entry.key in seen:
            raise InputError(f"{where}: key {entry.key!r} stands on line {seen[entry.key]} already")
        seen[entry.key] = number
        entries.append(entry)
    if not entries:
        raise InputError(f"{path}: expected at least one tile, found an empty manifest")
    return entries


def _entry(record: dict, where: str, folder: Path) -> Entry:
    """One parsed line -> Entry."""
    types = {"key": str, "sources": list, "licence": str, "attribution": str}
    _check_keys(record, types, set(types), where)
    if not KEY.fullmatch(record["key"]):
        raise InputError(f"{where}: key {record['key']!r}: expected letters, digits, '_' and '-' only")
    if not record["sources"]:
        raise InputError(f"{where}: expected at least one source, found none")
    readers = tuple(_reader(source, f"{where}: sources[{i}]", folder) for i, source in enumerate(record["sources"]))
    return Entry(record["key"], readers, record["licence"], record["attribution"])


def _reader(source: dict, where: str, folder: Path) -> Reader:
    """One source object -> its reader, files resolved and there."""
    name = source.get("reader") if isinstance(source, dict) else None
    if name not in READERS:
        raise InputError(f"{where}: reader {name!r} is unknown{_nearest(str(name), READERS)}; "
                         f"expected one of {sorted(READERS)}")
    kind = READERS[name]
    types = {field.name: field.type for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    options = {key: value for key, value in source.items() if key != "reader"}
    _check_keys(options, {key: JSON_TYPES[value] for key, value in types.items()}, required, where)
    for key, value in options.items():
        if types[key] in (Path, Path | None):
            options[key] = _file(folder / value, where)
        elif types[key] == tuple[Path, ...]:
            options[key] = tuple(_file(folder / name, where) for name in value)
        elif types[key] == tuple[str, ...]:
            options[key] = tuple(value)
    return kind(**options)


def _check_keys(record: dict, types: dict[str, type], required: set[str], where: str) -> None:
    """Every key known and of its type, every required key there."""
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(record).__name__}")
    for key, value in record.items():
        if key not in types:
            raise InputError(f"{where}: unknown key {key!r}{_nearest(key, types)}; known: {sorted(types)}")
        if not isinstance(value, types[key]):
            raise InputError(f"{where}: {key}: expected {types[key].__name__}, found {type(value).__name__}")
        if isinstance(value, list) and key != "sources" and not (value and all(isinstance(v, str) for v in value)):
            raise InputError(f"{where}: {key}: expected a list of names, found {value}")
    missing = sorted(required - set(record))
    if missing:
        raise InputError(f"{where}: missing {missing}")


def _nearest(name: str, known) -> str:
    """' (did you mean ...?)', or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _file(path: Path, where: str) -> Path:
    """A path that must be a file."""
    if not path.is_file():
        raise InputError(f"{where}: no file {path}; paths are relative to the manifest")
    return path
