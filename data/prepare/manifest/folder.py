"""A folder of files as one line of a manifest: a rule that finds tiles by the names of files.

    {"reader": "folder", "licence": "...", "attribution": "...", "key": "{class}-{name}", "sources":
     [{"reader": "patch", "path": "images/{class}/{name}.webp", "modality": "hr", ...}]}

The sources are those of a tile with patterns instead of paths; see pattern.py. Files of several
sources with the same key are one tile.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.prepare.contract.days import day_of_text
from data.prepare.manifest.checked import checked_keys
from data.prepare.manifest.entry import Record
from data.prepare.manifest.mistakes import Mistakes
from data.prepare.manifest.pattern import FIELD, MOST_SHOWN, Match, Pattern, filled
from data.suggest import did_you_mean

FOLDER = "folder"
NAME = "name"  # field that every file has: the stem of its name, unless the pattern says another
OPTIONAL = "optional"
SEVERAL = ("files", "paths")  # keys of readers of several files
WILD = re.compile(r"[*?]")
REMOTE = re.compile(r"/vsi|[A-Za-z][A-Za-z0-9+.-]*://")
DATE = "date"
NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]+")
ReaderOf = Callable[[object, Path], tuple[object, list[str]]]


class FolderKeys(BaseModel):
    """What the line may hold."""

    model_config = ConfigDict(strict=True, extra="forbid")

    reader: Literal["folder"]
    sources: Annotated[list[dict[str, Any]], Field(min_length=1)]
    licence: str
    attribution: str
    key: str = "{name}"
    fields: dict[str, str] = {}  # regular expressions for fields of the patterns
    split: str | None = None


@dataclass(frozen=True)
class _Source:
    """One of the rule's sources over one tile."""

    path: str
    keys: dict[str, Any]  # as a line of JSON has them
    fields: dict[str, str]


@dataclass
class _Tiles:
    """What the files of a folder make: key of a tile -> number of a source -> its files."""

    sources: dict[str, dict[int, list[_Source]]] = field(default_factory=dict)

    def add(self, key: str, number: int, source: _Source) -> None:
        self.sources.setdefault(key, {}).setdefault(number, []).append(source)


def is_folder(record: Record) -> bool:
    """Whether a record stands for a folder of files."""
    return isinstance(record.keys, dict) and record.keys.get("reader") == FOLDER


def folder_records(
    record: Record, folder: Path, reader_of: ReaderOf, mistakes: Mistakes
) -> Iterator[Record]:
    """The records of the tiles of a folder, in the order of their keys.

    Args:
        record: the rule.
        folder: its patterns are relative to it.
        reader_of: makes the reader of a source, or says what is wrong with it.
        mistakes: takes what is wrong with the rule, and files that it cannot place.
    """
    checked = checked_keys(FolderKeys, record.keys, folder)
    mistakes.add(record.where, *checked.faults)
    rule = checked.model
    if rule is None:
        return
    patterns, faults = _patterns(rule)
    tiles = _Tiles()
    if not faults:
        matches = {pattern.text: pattern.matches(folder) for pattern in patterns}
        for number, pattern in enumerate(patterns):
            if not matches[pattern.text]:
                faults.append(
                    f"sources[{number}]: {pattern.text!r} matches no file; "
                    f"{pattern.nearest(folder)}"
                )
            faults += _add(rule, number, matches[pattern.text], tiles)
    if not faults:
        faults = _faults(rule, tiles, folder, reader_of)
    mistakes.add(record.where, *faults)
    if faults:
        return
    for key in sorted(tiles.sources):
        yield _record(record, rule, key, tiles.sources[key])


def _patterns(rule: FolderKeys) -> tuple[list[Pattern], list[str]]:
    """The pattern of each source, which is that of its first file; and what is wrong with them."""
    patterns = []
    faults = []
    for number, source in enumerate(rule.sources):
        paths = _paths(source)
        if not paths or not paths[0] or REMOTE.match(paths[0]):
            faults.append(
                f"sources[{number}]: expected a pattern of paths of this file system in 'path' or "
                f"'files', found {paths[:1]}"
            )
            continue
        wild = [path for path in paths[1:] if WILD.search(path)]
        if wild:
            faults.append(
                f"sources[{number}]: {wild[0]!r}: only the first path of a source finds files; "
                "give the others its fields ('{name}') instead of '*' and '?'"
            )
        try:
            patterns.append(Pattern(paths[0], rule.fields))
        except re.error as error:
            faults.append(f"sources[{number}]: fields: not a regular expression ({error})")
    known = {NAME}
    for pattern in patterns:
        known |= pattern.fields
    for name in rule.fields:
        if name not in known:
            faults.append(f"fields: no path has {{{name}}}{did_you_mean(name, known)}")
    return patterns, faults


def _paths(source: dict[str, Any]) -> list[str]:
    """The paths of a source, of which the first one finds its files."""
    for name in SEVERAL:
        many = source.get(name)
        if isinstance(many, dict):
            many = list(many.values())
        if isinstance(many, list):
            return [path for path in many if isinstance(path, str)]
    path = source.get("path")
    if isinstance(path, str):
        return [path]
    return []


def _add(rule: FolderKeys, number: int, matches: list[Match], tiles: _Tiles) -> list[str]:
    """Add the files of a source to the tiles; returns what is wrong."""
    template = rule.sources[number]
    for match in matches:
        fields = {NAME: PurePosixPath(match.path).stem, **match.fields}
        key = filled(rule.key, fields)
        unknown = FIELD.search(key)
        if unknown:
            return [
                f"key {rule.key!r}: sources[{number}] has no {unknown[0]}, only "
                f"{sorted(fields)}; write it into 'path'"
            ]
        keys = _filled_source(template, match, fields)
        key = NOT_IN_KEYS.sub("-", key).strip("-")
        tiles.add(key, number, _Source(match.path, keys, fields))
    return []


def _filled_source(template: dict[str, Any], match: Match, fields: dict[str, str]) -> dict:
    """The keys of a source for one file."""
    keys = {name: _filled(value, fields) for name, value in template.items() if name != OPTIONAL}
    for name in SEVERAL:
        if isinstance(keys.get(name), dict):
            keys[name][next(iter(keys[name]))] = match.path
            return keys
        if isinstance(keys.get(name), list):
            keys[name][0] = match.path
            return keys
    keys["path"] = match.path
    return keys


def _filled(value: Any, fields: dict[str, str]) -> Any:
    """A value of JSON whose texts have the values of their fields."""
    if isinstance(value, str):
        return filled(value, fields)
    if isinstance(value, list):
        return [_filled(item, fields) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, fields) for key, item in value.items()}
    return value


def _faults(rule: FolderKeys, tiles: _Tiles, folder: Path, reader_of: ReaderOf) -> list[str]:
    """What is wrong with the sources of the tiles, each source once."""
    faults = []
    for number, template in enumerate(rule.sources):
        lacking = [key for key, sources in tiles.sources.items() if number not in sources]
        if lacking and template.get(OPTIONAL) is not True:
            faults.append(
                f"sources[{number}]: {len(lacking)} of {len(tiles.sources)} tiles have no file "
                f"{_paths(template)[0]!r}: {_shown(lacking)}; correct the names, or give the "
                f"source '{OPTIONAL}': true"
            )
        examples = [sources[number] for sources in tiles.sources.values() if number in sources]
        _, wrong = reader_of(examples[0][0].keys, folder)
        faults += [f"sources[{number}]: {fault}" for fault in wrong]
        repeated = [sources for sources in examples if _has_twice(sources)]
        if repeated:
            one, other = repeated[0][:2]
            faults.append(
                f"sources[{number}]: {one.path} and {other.path} would be one tile, as in "
                f"{len(repeated)} cases; name what they differ in, in 'path' and 'key' "
                "('key': '{class}-{name}'), or in 'date'"
            )
    return faults


def _has_twice(sources: list[_Source]) -> bool:
    """Whether some files of one source and tile have no dates that tell them apart."""
    dates = [str(source.keys.get(DATE, "")) for source in sources]
    return len({day_of_text(date) for date in dates}) < len(sources)


def _record(rule_record: Record, rule: FolderKeys, key: str, sources: dict) -> Record:
    """The record of one tile."""
    chosen = []
    for number in sorted(sources):
        chosen += sources[number]
    first = chosen[0]
    keys: dict[str, Any] = {
        "key": key,
        "licence": filled(rule.licence, first.fields),
        "attribution": filled(rule.attribution, first.fields),
        "sources": [source.keys for source in chosen],
    }
    if rule.split is not None:
        keys["split"] = filled(rule.split, first.fields)
    return Record(f"{rule_record.where}: {first.path}", keys, whole=_paths(rule.sources[0])[0])


def _shown(keys: list[str]) -> str:
    """The first of some keys."""
    shown = ", ".join(sorted(keys)[:MOST_SHOWN])
    if len(keys) > MOST_SHOWN:
        shown += ", ..."
    return shown
