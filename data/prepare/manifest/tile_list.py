"""A list of the tiles to be made: keys, and where each lies."""

import json
from collections.abc import Iterator
from pathlib import Path

from data.errors import InputError
from data.prepare.manifest.cells import TILE_FORMS, one_line
from data.prepare.manifest.csv_table import csv_rows
from data.prepare.manifest.mistakes import Mistakes
from data.prepare.manifest.parquet_table import parquet_rows
from data.prepare.manifest.table import spot_keys

COLUMNS = ("key", "lon", "lat", "cells", "footprint", "split")


def tile_rows(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, dict]]:
    """Read a list of tiles: CSV, GeoParquet or GeoJSON.

    Args:
        path: the list.
        mistakes: takes rows that are none, which are left out.

    Yields:
        The place of a row in the file, and its key with centre and cells, or with a footprint;
        and its split, if it has one.

    Raises:
        InputError: no such file, or another form.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a list of tiles, found no such file")
    for where, row in _rows(path, mistakes):
        if "key" not in row:
            mistakes.add(where, "missing ['key']")
            continue
        keys = {name: row[name] for name in ("key", "split") if name in row}
        yield where, {**keys, **spot_keys(row)}


def _rows(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, dict]]:
    """The rows of a list, by the form that its suffix tells."""
    form = path.suffix.lower()
    if form in (".json", ".geojson"):
        return _geojson_rows(path, mistakes)
    forms = {name: TILE_FORMS[name] for name in COLUMNS}
    if form == ".csv":
        return csv_rows(path, forms, mistakes)
    if form in (".parquet", ".geoparquet"):
        return parquet_rows(path, forms, mistakes)
    raise InputError(
        f"{path}: expected a list of tiles that ends in .csv, .geojson, .json, .parquet or "
        f".geoparquet, found {form!r}"
    )


def _geojson_rows(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, dict]]:
    """One row a feature with the property ``key``.

    Polygons are footprints; points are centres, with the property ``cells``.
    """
    for number, feature in enumerate(features_of(path)["features"]):
        where = f"{path}: features[{number}]"
        properties = feature.get("properties")
        geometry = feature.get("geometry")
        if not isinstance(properties, dict) or not isinstance(geometry, dict):
            mistakes.add(where, "expected a feature with properties and a geometry")
            continue
        row = {name: properties[name] for name in ("key", "cells", "split") if name in properties}
        point = geometry.get("coordinates")
        if geometry.get("type") == "Point" and isinstance(point, list) and len(point) >= 2:
            row["lon"] = point[0]
            row["lat"] = point[1]
        else:
            row["footprint"] = geometry
        yield where, row


def features_of(path: Path) -> dict:
    """A GeoJSON FeatureCollection whose features are objects.

    Raises:
        InputError: the file holds anything else.
    """
    try:
        collection = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({one_line(error)})") from None
    if not _is_collection(collection):
        raise InputError(f"{path}: expected a FeatureCollection, found none")
    return collection


def _is_collection(collection: object) -> bool:
    if not isinstance(collection, dict) or not isinstance(collection.get("features"), list):
        return False
    return all(isinstance(feature, dict) for feature in collection["features"])
