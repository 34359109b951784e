"""Windows of vector files as features to be drawn.

The files are GeoPackage, GeoJSON, FlatGeobuf or OpenStreetMap.
"""

import functools
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError

from data.errors import InputError
from data.osm.features import (
    Box,
    Features,
    Tags,
    boxes,
    features_of,
    join,
    place,
    within_a_turn,
)
from data.osm.tag_tables import KEYS
from data.tiles.longitudes import FARTHEST, HALF_TURN, POLE

TAG_COLUMNS = ("other_tags", "all_tags", "tags")  # all tags in one column: hstore or JSON text
NEAR = 10.0  # degrees: a shape that crosses the 180th meridian lies no farther from it
ROUNDING = 1e-6  # degrees that a writer may be beyond a pole
_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"\s*=>\s*(?:NULL|"((?:[^"\\]|\\.)*)")')


class Layer(NamedTuple):
    """What a layer's header says."""

    name: str
    crs: CRS
    columns: tuple[str, ...]  # those that hold tags
    fast: bool  # has a spatial index, so that a window costs no full scan
    bounds: Box | None  # of all its shapes, in ``crs``; None when it has none


def layers_of(path: Path, wanted: tuple[str, ...] = ()) -> list[Layer]:
    """The layers of a file that hold geometry.

    Args:
        path: the file.
        wanted: the layers to take; empty for all.

    Raises:
        InputError: no vector file, no layer of a wanted name, or a layer that does not say where it
            lies.
    """
    with reading(path):
        state = path.stat()
        names = _geometry_layers(path, state.st_size, state.st_mtime_ns)
        missing = sorted(set(wanted) - set(names))
        if missing:
            raise InputError(
                f"{path}: no layer with geometry is named {missing[0]!r}; it has {sorted(names)}"
            )
        if not names:
            raise InputError(f"{path}: expected a layer with geometry, found none")
        layers = []
        for name in names:
            if name in wanted or not wanted:
                layers.append(_header(path, name, size=state.st_size, changed=state.st_mtime_ns))
        return layers


# GDAL reads a whole GeoJSON file for its header, and every tile asks for it. Size and time of
# change are part of the cache's key.
@functools.lru_cache(maxsize=256)
def _geometry_layers(path: Path, size: int, changed: int) -> list[str]:
    return [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]


@functools.lru_cache(maxsize=256)
def _header(path: Path, name: str, *, size: int, changed: int) -> Layer:
    info = pyogrio.read_info(path, layer=name, force_total_bounds=True)
    crs = None
    if info["crs"]:
        try:
            with rasterio.Env():  # without it GDAL prints what it thinks of the text
                crs = CRS.from_user_input(info["crs"])
        except CRSError:
            crs = None
    if crs is None or not (crs.is_projected or crs.is_geographic):
        raise InputError(
            f"{path}: layer {name!r}: expected a projected or geographic CRS, found {info['crs']}; "
            "georeference it first"
        )
    columns = []
    for column in info["fields"]:
        if column in KEYS or column in TAG_COLUMNS:
            columns.append(str(column))
    bounds = info["total_bounds"]
    if bounds is None or not np.isfinite(bounds).all():
        bounds = None
    else:
        _check_degrees(path, crs, bounds)
    return Layer(name, crs, tuple(columns), info["capabilities"]["fast_spatial_filter"], bounds)


def _check_degrees(path: Path, crs: CRS, bounds: Box) -> None:
    """Raise InputError for coordinates that can be no degrees although their CRS says so."""
    if not crs.is_geographic:
        return
    unit = np.degrees(crs.units_factor[1])  # of grads in degrees
    left, bottom, right, top = np.multiply(bounds, unit)
    x = max(-left, right)
    y = max(-bottom, top)
    if x <= FARTHEST and y <= POLE + ROUNDING:
        return
    what_to_do = "name the CRS that they are in, or convert them"
    if x <= POLE and y <= FARTHEST:
        what_to_do = "latitude seems to stand first: exchange the two"
    elif path.suffix.lower() in (".geojson", ".json"):
        what_to_do = (
            'GeoJSON is in degrees unless it has a member "crs", such as {"type": "name", '
            '"properties": {"name": "EPSG:32631"}}: add that, or convert them'
        )
    raise InputError(
        f"{path}: expected longitudes and latitudes in degrees, found coordinates from "
        f"({bounds[0]:g}, {bounds[1]:g}) to ({bounds[2]:g}, {bounds[3]:g}); {what_to_do}"
    )


def window(
    path: Path, layers: Sequence[Layer], *, default_tags: Tags, target: CRS, bounds: Box
) -> Features:
    """What a file holds around a tile.

    Args:
        path: the file.
        layers: those to read.
        default_tags: stand in for shapes without a telling tag.
        target: CRS of the result.
        bounds: of the tile, in ``target``.
    """
    parts = []
    for layer in layers:
        areas = boxes(layer.crs, bounds, target=target)
        shapes, tags = read_rows(path, layer, _reach(layer, areas))
        features = within_a_turn(features_of(shapes, tags, default_tags), layer.crs)
        around = join([place(features, layer.crs, box, target=target) for box in areas])
        parts.append(replace(around, skipped=features.skipped, classless=features.classless))
    return join(parts)


def _reach(layer: Layer, areas: list[Box]) -> Box:
    """Where the shapes may be stored that lie in the areas: boxes in the layer's CRS.

    Near the 180th meridian, and in a layer that runs beyond it, longitudes may have any winding and
    a ring that jumps is stored as one around the world: all longitudes are read there.
    """
    left, bottom, right, top = shapely.total_bounds(shapely.box(*np.transpose(areas)))
    if not layer.crs.is_geographic or layer.bounds is None:
        return (left, bottom, right, top)
    is_plain = layer.bounds[0] >= -HALF_TURN and layer.bounds[2] <= HALF_TURN
    if is_plain and max(-left, right) < HALF_TURN - NEAR:
        return (left, bottom, right, top)
    return (-FARTHEST, bottom, FARTHEST, top)


def read_rows(path: Path, layer: Layer, box: Box) -> tuple[np.ndarray, list[Tags]]:
    """Shapes (n,) of a layer that touch ``box``, and their tags."""
    with reading(path):
        meta, _, wkb, columns = pyogrio.raw.read(
            path, layer=layer.name, columns=list(layer.columns), bbox=box, force_2d=True
        )
    return shapes_of(wkb), tags_of_columns(list(meta["fields"]), columns, count=len(wkb))


def tags_of_columns(names: Sequence, columns: Sequence, *, count: int) -> list[Tags]:
    """The tags of ``count`` rows, from the columns that hold tags."""
    rows: list[dict] = [{} for _ in range(count)]
    for name, column in zip(names, columns):
        for row, value in zip(rows, column):
            row[str(name)] = value
    return [tags_of(row) for row in rows]


def shapes_of(wkb: np.ndarray) -> np.ndarray:
    """Shapes (n,) of WKB; rings left open are closed.

    Bytes that are no shape become an empty one, to be counted.
    """
    shapes = shapely.from_wkb(wkb, on_invalid="fix")
    shapes[shapely.is_missing(shapes)] = shapely.Polygon()
    return shapes


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what GDAL says of a broken file into one InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError) as error:  # pyogrio's errors are RuntimeErrors
        message = " ".join(str(error).split())
        raise InputError(
            f"{path}: expected a vector file (GeoPackage, GeoJSON, FlatGeobuf, .osm, .osm.pbf), "
            f"found: {message}"
        ) from None


def tags_of(row: dict) -> Tags:
    """One row's columns as tags.

    A column of its own wins over the same key in a column of all tags.
    """
    tags: Tags = {}
    for name in TAG_COLUMNS:
        if row.get(name):
            for key, value in parse_tags(row[name]).items():
                if key in KEYS:
                    tags[key] = value
    for name, value in row.items():
        if name in KEYS and not _is_null(value):
            tags[name] = tag_text(value)
    return tags


def parse_tags(column: str | dict) -> Tags:
    """The tags in a column of all tags.

    Args:
        column: an object, JSON text, or PostgreSQL's hstore text as GDAL writes it
            ("key"=>"value","key"=>"value").
    """
    if isinstance(column, dict):
        return _text_tags(column)
    if column.lstrip().startswith("{"):
        try:
            return _text_tags(json.loads(column))
        except json.JSONDecodeError:
            return {}
    return {_unescaped(key): _unescaped(value) for key, value in _PAIR.findall(column)}


def _text_tags(values: dict) -> Tags:
    """The values of an object as tags have them, without those that are null."""
    return {str(key): tag_text(value) for key, value in values.items() if not _is_null(value)}


def tag_text(value: object) -> str:
    """A column's value as a tag has it: 4.0 is "4", true is "yes"."""
    if isinstance(value, (bool, np.bool_)):
        if value:
            return "yes"
        return "no"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def _unescaped(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted)
