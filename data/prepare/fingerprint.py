"""What a tile is made of, as one short text that two runs can compare."""

import json
import os
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from rasterio.crs import CRS

from data.hashing import content_hash
from data.prepare.manifest.entry import Entry


def fingerprint(entry: Entry) -> str:
    """A hash of everything in an entry that decides its tile.

    Two entries have the same one if their keys have the same values, in whatever form and line of
    whatever manifest they stand. Files count by their paths from the manifest's folder. What has
    its default does not count: so a key that a later version adds changes no hash.

    Args:
        entry: of one tile, see ``expanded``.
    """

    def plain(value: Any) -> Any:
        """A value that JSON does not know."""
        if isinstance(value, Path):
            return _place_of(value, entry.folder)
        if isinstance(value, CRS):
            return value.to_wkt()
        if is_dataclass(value):
            return {type(value).__name__: _given(value)}
        raise TypeError(f"{entry.key}: no hash of a {type(value).__name__} is known")

    # The rule that gave the tile decides how it is counted, not what it holds; nor does the folder.
    own = replace(entry, whole="", folder=Path())
    return content_hash(json.dumps(own, default=plain).encode())


def _place_of(file: Path, folder: Path) -> str | list[str]:
    """Where a file lies from the manifest's folder; behind a ``..`` may be another one.

    A tile also records how a file of a far folder is reached.
    """
    file = file.absolute()
    folder = folder.absolute()
    if file.is_relative_to(folder):
        return file.relative_to(folder).as_posix()
    return [file.as_posix(), os.path.relpath(file, folder)]


def _given(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    given = {}
    for field in fields(value):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        content = getattr(value, field.name)
        if default is MISSING or content != default:
            given[field.name] = content
    return given
