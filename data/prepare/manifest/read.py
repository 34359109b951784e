"""The manifest of a preparation run: which sources make which tile.

    {"key": "...", "licence": "...", "attribution": "...", "sources": [{"reader": "geotiff_image",
     "path": "a.tif", "modality": "hr", "bands": ["R", "G", "B"], ...}, ...]}

A reader's fields are its keys; paths are relative to the manifest. Every form of manifest becomes
such records, so all are checked once, in records.py. docs/manifest.md has all forms,
docs/readers.md all keys of sources.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from data.errors import InputError
from data.prepare.manifest.cells import one_line
from data.prepare.manifest.entry import Entry, Record
from data.prepare.manifest.folder import folder_records, is_folder
from data.prepare.manifest.mistakes import Mistakes
from data.prepare.manifest.records import columns, entry_of, reader_of
from data.prepare.manifest.table import table_records
from data.scenes.blocks import SplitRule


def read_manifest(path: str | Path, tiles: str | Path | None = None) -> list[Entry]:
    """Read all entries, in the order of the file.

    The files that the sources name are not looked at: a reader's ``check`` does that, its
    ``check_keys`` is asked here.

    Args:
        path: the manifest. Its suffix tells the form: .jsonl, .csv, .parquet or .geoparquet, .json
            or .geojson (a STAC item collection).
        tiles: a list of the tiles to be cut from a STAC item collection, which needs one unless it
            has the key ``scene``.

    Raises:
        InputError: anything unknown, missing, repeated, of a wrong type or of a value that can
            never work. The message has a line, with file and line number and all mistakes there,
            for each of the first wrong lines.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a manifest, found no such file")
    entries = []
    mistakes = Mistakes(path)
    places: dict[str, str] = {}  # key -> where it was first
    rules: dict[SplitRule, str] = {}  # how scenes are split -> where it was first
    for record in _single_records(path, tiles, mistakes):
        entry = entry_of(record, path.parent, mistakes)
        key = _key(record)
        if key in places:
            mistakes.add(record.where, f"key {key!r} stands on {_line(places[key])} already")
        places[key] = record.where
        if entry is not None:
            _check_split(entry, rules, record.where, mistakes)
            entries.append(entry)
    mistakes.check()
    if not entries:
        raise InputError(f"{path}: expected at least one tile, found an empty manifest")
    return entries


def _check_split(entry: Entry, rules: dict[SplitRule, str], where: str, mistakes: Mistakes) -> None:
    """Note a scene that is split by another rule than the first one.

    Under two rules one place could be for training in one scene and for validation in another.
    """
    rule = getattr(entry.rule, "split", None)
    if rule is None or rule in rules:
        return
    if rules:
        first, place = next(iter(rules.items()))
        mistakes.add(
            where,
            f"scene: splits by {rule}, {_line(place)} by {first}; expected one rule, so that no "
            "ground is for both",
        )
    rules[rule] = where


def _single_records(path: Path, tiles: str | Path | None, mistakes: Mistakes) -> Iterator[Record]:
    """The records of a manifest, and in the place of a folder those of its files."""
    for record in _records(path, tiles, mistakes):
        if is_folder(record):
            yield from folder_records(record, path.parent, reader_of, mistakes)
        else:
            yield record


def _key(record: Record) -> str:
    """A record's key, which may be no text, or missing: then it is a name that no other has."""
    key = None
    if isinstance(record.keys, dict):
        key = record.keys.get("key")
    if not isinstance(key, str):
        return record.where
    return key


def _line(where: str) -> str:
    """'line 7' of a place 'file:7'; what stands behind the colon of any other place."""
    place = where.rpartition(":")[2].strip()
    if place.isdigit():
        return f"line {place}"
    return place


def _records(path: Path, tiles: str | Path | None, mistakes: Mistakes) -> Iterator[Record]:
    """The records of a manifest, by the form that its suffix tells."""
    form = path.suffix.lower()
    if form in (".json", ".geojson"):
        return _stac_records(path, tiles, mistakes)
    if tiles is not None:
        raise InputError(
            f"{path}: names its tiles itself; a list of tiles ({tiles}) goes with a STAC item "
            "collection"
        )
    if form in (".csv", ".parquet", ".geoparquet"):
        return table_records(path, columns(), mistakes)
    if form == ".jsonl":
        return _json_lines(path, mistakes)
    raise InputError(
        f"{path}: expected a manifest that ends in .jsonl, .csv, .parquet, .geoparquet, .json or "
        f".geojson, found {form!r}"
    )


def _stac_records(path: Path, tiles: str | Path | None, mistakes: Mistakes) -> Iterator[Record]:
    # pystac takes 0.1 s to import, and most manifests are of another form.
    from data.prepare.manifest.stac import stac_records

    return stac_records(path, None if tiles is None else Path(tiles), reader_of, mistakes)


def _json_lines(path: Path, mistakes: Mistakes) -> Iterator[Record]:
    """One record a line that is JSON."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                mistakes.add(where, f"not valid JSON ({error.msg}, column {error.colno})")
                continue
            except (ValueError, RecursionError) as error:  # bad bytes, or nesting without end
                mistakes.add(where, f"not valid JSON ({one_line(error)})")
                continue
            yield Record(where, record)


def _object(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON; ValueError when it has a key twice, of which JSON would take the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted(name for name in values if names.count(name) > 1)
        raise ValueError(f"the keys {twice} stand there more than once")
    return values
