"""Windows of vector files (GeoPackage, GeoJSON, FlatGeobuf, OpenStreetMap) as features to be drawn."""

import functools
import json
import math
import re
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyogrio
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError

from data.errors import InputError
from data.osm.features import Box, Features, boxes, features_of, join, place
from data.osm.tags import KEYS

TAG_COLUMNS = ("other_tags", "all_tags", "tags")  # all tags in one column: hstore or JSON text
_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"\s*=>\s*(?:NULL|"((?:[^"\\]|\\.)*)")')


class Layer(NamedTuple):
    """What a layer's header says."""

    name: str
    crs: CRS
    columns: tuple[str, ...]  # those that hold tags
    fast: bool  # has a spatial index, so that a window costs no full scan


def layers_of(path: Path, wanted: tuple[str, ...] = ()) -> list[Layer]:
    """The layers that hold geometry; of those in ``wanted`` only, if any are named.

    Raises InputError when the file is no vector file, lacks a wanted layer or does not say where a
    layer lies."""
    with reading(path):
        state = path.stat()
        found = _geometry_layers(path, state.st_size, state.st_mtime_ns)
        missing = sorted(set(wanted) - set(found))
        if missing:
            raise InputError(
                f"{path}: no layer with geometry is named {missing[0]!r}; it has {sorted(found)}"
            )
        if not found:
            raise InputError(f"{path}: expected a layer with geometry, found none")
        return [
            _header(path, name, state.st_size, state.st_mtime_ns)
            for name in found
            if name in wanted or not wanted
        ]


@functools.lru_cache(
    maxsize=256
)  # GDAL reads a whole GeoJSON file for its header, and every tile asks
def _geometry_layers(path: Path, size: int, changed: int) -> list[str]:
    return [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]


@functools.lru_cache(maxsize=256)
def _header(path: Path, name: str, size: int, changed: int) -> Layer:
    info = pyogrio.read_info(path, layer=name)
    try:
        crs = CRS.from_user_input(info["crs"]) if info["crs"] else None
    except CRSError:
        crs = None
    if crs is None or not (crs.is_projected or crs.is_geographic):
        raise InputError(
            f"{path}: layer {name!r}: expected a projected or geographic CRS, found {info['crs']}; "
            f"georeference it first"
        )
    columns = tuple(
        str(column) for column in info["fields"] if column in KEYS or column in TAG_COLUMNS
    )
    return Layer(name, crs, columns, info["capabilities"]["fast_spatial_filter"])


def window(
    path: Path, layers: list[Layer], default: dict[str, str], target: CRS, bounds: Box
) -> Features:
    """What the layers hold around ``bounds``, in ``target``; ``default``: see features_of."""
    return join(
        [
            place(features_of(*read_rows(path, layer, box), default), layer.crs, box, target)
            for layer in layers
            for box in boxes(layer.crs, target, bounds)
        ]
    )


def read_rows(path: Path, layer: Layer, box: Box) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Shapes (n,) of a layer that touch ``box``, and their tags."""
    with reading(path):
        meta, _, wkb, data = pyogrio.raw.read(
            path, layer=layer.name, columns=list(layer.columns), bbox=box, force_2d=True
        )
    names = [str(name) for name in meta["fields"]]
    tags = (
        [tags_of(dict(zip(names, values))) for values in zip(*data)] if names else [{} for _ in wkb]
    )
    return shapes_of(wkb), tags


def shapes_of(wkb: np.ndarray) -> np.ndarray:
    """Shapes (n,) of WKB; rings left open are closed. Bytes that are no shape become an empty one,
    to be counted."""
    shapes = shapely.from_wkb(wkb, on_invalid="fix")
    shapes[shapely.is_missing(shapes)] = shapely.Polygon()
    return shapes


@contextmanager
def reading(path: Path):
    """Turns what GDAL says of a broken file into one InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError) as error:  # pyogrio's errors are RuntimeErrors
        said = " ".join(str(error).split())
        raise InputError(
            f"{path}: expected a vector file (GeoPackage, GeoJSON, FlatGeobuf, .osm, .osm.pbf), "
            f"found: {said}"
        ) from None


def tags_of(row: dict) -> dict[str, str]:
    """One row's columns as tags; a column of its own wins over the same key in a column of all
    tags."""
    tags = {}
    for name in TAG_COLUMNS:
        if row.get(name):
            tags |= {key: value for key, value in parse_tags(row[name]).items() if key in KEYS}
    return tags | {
        name: text(value) for name, value in row.items() if name in KEYS and not _none(value)
    }


def parse_tags(column: str | dict) -> dict[str, str]:
    """Tags of one column: JSON text, or PostgreSQL's hstore text as GDAL writes it
    ("key"=>"value","key"=>"value")."""
    if isinstance(column, dict) or column.lstrip().startswith("{"):
        try:
            found = column if isinstance(column, dict) else json.loads(column)
        except json.JSONDecodeError:
            return {}
        return {str(key): text(value) for key, value in found.items() if not _none(value)}
    return {_unescaped(key): _unescaped(value) for key, value in _PAIR.findall(column)}


def text(value) -> str:
    """A column's value as a tag has it: 4.0 is "4", true is "yes"."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _none(value) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _unescaped(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted)
