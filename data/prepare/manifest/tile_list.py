"""A list of the tiles to be made: keys, and where each lies."""

import json
from collections.abc import Iterator
from pathlib import Path

from data.errors import InputError
from data.prepare.manifest.table import csv_rows, parquet_rows, spot_keys

COLUMNS = {"key", "lon", "lat", "cells", "footprint"}


def tile_rows(path: Path) -> Iterator[tuple[str, dict]]:
    """(file:row, key with centre and cells or footprint) of a list of tiles: CSV, GeoParquet or
    GeoJSON."""
    form = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{path}: expected a list of tiles, found no such file")
    if form in (".json", ".geojson"):
        rows = _geojson_rows(path)
    elif form in (".csv", ".parquet", ".geoparquet"):
        rows = (csv_rows if form == ".csv" else parquet_rows)(path, COLUMNS)
    else:
        raise InputError(
            f"{path}: expected a list of tiles that ends in .csv, .geojson, .json, .parquet or "
            f".geoparquet, found {form!r}"
        )
    for where, row in rows:
        if "key" not in row:
            raise InputError(f"{where}: missing ['key']")
        yield where, {"key": row["key"], **spot_keys(row)}


def _geojson_rows(path: Path) -> Iterator[tuple[str, dict]]:
    """Features with the property ``key``: polygons are footprints, points are centres with the
    property ``cells``."""
    for number, feature in enumerate(features_of(path)["features"]):
        where = f"{path}: features[{number}]"
        row, shape = feature.get("properties"), feature.get("geometry")
        if not isinstance(row, dict) or not isinstance(shape, dict):
            raise InputError(f"{where}: expected a feature with properties and a geometry")
        row = {name: row[name] for name in ("key", "cells") if name in row}
        point = shape.get("coordinates") if shape.get("type") == "Point" else None
        if isinstance(point, list) and len(point) >= 2:
            yield where, {**row, "lon": point[0], "lat": point[1]}
        else:
            yield where, {**row, "footprint": shape}


def features_of(path: Path) -> dict:
    """A GeoJSON FeatureCollection whose features are objects."""
    try:
        collection = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({' '.join(str(error).split())})") from None
    if (
        not isinstance(collection, dict)
        or not isinstance(collection.get("features"), list)
        or not all(isinstance(feature, dict) for feature in collection["features"])
    ):
        raise InputError(f"{path}: expected a FeatureCollection, found none")
    return collection
