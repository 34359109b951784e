"""An indexed copy of a vector file that has no spatial index: made once, then read a window at a
time.

A .osm.pbf, .osm or large GeoJSON file would cost a full scan for every tile. Its copy is a
FlatGeobuf file beside it, ``<name>.<digest>.fgb``, with what is drawn of it: shape, class, width,
level; a .json file of that name counts the shapes, and those that were mended or skipped. The
digest is over the file's size and time of change, the options and the code that decides what is
drawn, so a copy never serves what it was not made for; an old one may be deleted at any time.
OpenStreetMap files are read through osmium, because GDAL reads a damaged one as an empty one.
"""

import fcntl
import functools
import glob
import inspect
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import osmium
import pyarrow
import pyogrio
import shapely
from rasterio.crs import CRS

import data.osm.features
import data.osm.tags
import data.tiles.classes
from data.errors import InputError
from data.files import whole_file
from data.hashing import content_hash
from data.osm.features import Box, Features, boxes, features_of, join, place
from data.osm.tags import AREAS, KEYS, WAYS
from data.osm.vector_files import layers_of, reading, shapes_of, tags_of

OSM_SUFFIXES = (".osm", ".pbf", ".osm.bz2", ".osm.gz")
LAYER = "features"
SMALL = 2**20  # bytes: a GeoJSON file up to this size is read anew for every tile
BATCH = 50_000  # shapes
COLUMNS = {
    "class": pyarrow.int16(),
    "width": pyarrow.float32(),
    "level": pyarrow.int16(),
    "mended": pyarrow.bool_(),
}
SCHEMA = pyarrow.schema(
    [
        *COLUMNS.items(),
        pyarrow.field(
            "geometry", pyarrow.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}
        ),
    ]
)


def indexed(path: Path, layers: tuple[str, ...], default: dict[str, str]) -> Path | None:
    """The indexed copy of a file that needs one, made now if it is not there; None for a file that
    needs none.

    Several processes may ask at once: one makes the copy, the others wait. It appears whole or not
    at all. Raises InputError when the file is damaged, or its folder cannot be written to."""
    with reading(path):
        small = path.stat().st_size <= SMALL
    if small and not is_osm(path):
        return None
    copy = path.with_name(f"{path.name}.{_digest(path, layers, default)}.fgb")
    if copy.exists():
        return copy
    if not is_osm(path) and all(layer.fast for layer in layers_of(path, layers)):
        return None
    with _alone(copy):
        if not copy.exists():
            _make(path, layers, default, copy)
    return copy


def window(copy: Path, target: CRS, bounds: Box) -> Features:
    """What an indexed copy holds around ``bounds``, in ``target``."""
    (layer,) = layers_of(copy)
    return join(
        [
            place(_rows(copy, box), layer.crs, box, target)
            for box in boxes(layer.crs, target, bounds)
        ]
    )


def check_osm(path: Path) -> None:
    """InputError unless the file begins as an OpenStreetMap file does."""
    with _damage(path), osmium.io.Reader(path) as reader:
        reader.header()


def is_osm(path: Path) -> bool:
    """Whether the file's name says that it holds OpenStreetMap's own objects."""
    return path.name.endswith(OSM_SUFFIXES)


def _digest(path: Path, layers: tuple[str, ...], default: dict[str, str]) -> str:
    state = path.stat()
    told = json.dumps([state.st_size, state.st_mtime_ns, layers, sorted(default.items()), _rules()])
    return content_hash(told.encode())[:16]


@functools.cache
def _rules() -> str:
    """The code that decides what is drawn."""
    return "".join(
        inspect.getsource(module)
        for module in (data.tiles.classes, data.osm.tags, data.osm.features)
    )


@contextmanager
def _alone(copy: Path):
    """Holds the lock on making this copy; the system frees it when the process ends, however it
    ends."""
    lock = copy.with_name(f".{copy.stem}.lock")
    try:
        file = open(lock, "w")
    except OSError as error:
        raise InputError(
            f"{copy.parent}: an indexed copy of {copy.name.rsplit('.', 2)[0]} must be written here, but "
            f"{error.strerror}; link the file into a folder that can be written to"
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(path: Path, layers: tuple[str, ...], default: dict[str, str], copy: Path) -> None:
    """Write the copy under another name, then rename it."""
    found = _osm_features(path) if is_osm(path) else _layer_features(path, layers, default)
    crs = "EPSG:4326" if is_osm(path) else _one_crs(path, layers)
    mine = f"{copy.stem}.{socket.gethostname()}"
    for left in copy.parent.glob(
        f"{glob.escape(mine)}.*.partial*"
    ):  # by a process that was killed: we hold its lock
        left.unlink()
    partial = copy.with_name(f"{mine}.{os.getpid()}.partial.fgb")
    failure: list[Exception] = []
    count = dict.fromkeys(("shapes", "mended", "skipped"), 0)
    rows = pyarrow.RecordBatchReader.from_batches(SCHEMA, _batches(found, count, failure))
    try:
        with whole_file(copy, scratch=partial):
            pyogrio.write_arrow(
                rows,
                partial,
                layer=LAYER,
                driver="FlatGeobuf",
                geometry_name="geometry",
                geometry_type="Unknown",
                crs=crs,
            )
            copy.with_suffix(".json").write_text(json.dumps(count) + "\n")
    except Exception:
        if failure:  # what GDAL says then is only that the stream broke off
            raise failure[0] from None
        raise


def _batches(
    found: Iterator[Features], count: dict[str, int], failure: list[Exception]
) -> Iterator[pyarrow.RecordBatch]:
    """Features as the rows of the copy, counted on the way. An exception, which would be lost on
    its way through GDAL, is kept in ``failure``."""
    try:
        for part in found:
            for name, more in (
                ("shapes", len(part)),
                ("mended", part.mended.sum()),
                ("skipped", part.skipped),
            ):
                count[name] += int(more)
            columns = [
                part.index,
                part.width,
                part.level,
                part.mended,
                shapely.to_wkb(part.geometry),
            ]
            yield pyarrow.RecordBatch.from_arrays(
                [pyarrow.array(column, field.type) for column, field in zip(columns, SCHEMA)],
                schema=SCHEMA,
            )
    except Exception as error:
        failure.append(error)
        raise


def _one_crs(path: Path, layers: tuple[str, ...]) -> str:
    """The CRS of all layers as WKT."""
    found = {layer.crs.to_wkt() for layer in layers_of(path, layers)}
    if len(found) > 1:
        raise InputError(
            f"{path}: has layers in different CRS and no spatial index; add a spatial index to each, or "
            f"read each layer as a source of its own ('layers')"
        )
    return found.pop()


def _layer_features(
    path: Path, layers: tuple[str, ...], default: dict[str, str]
) -> Iterator[Features]:
    """Everything in the layers, in parts of BATCH shapes."""
    for layer in layers_of(path, layers):
        columns = list(layer.columns)
        with (
            reading(path),
            pyogrio.open_arrow(
                path, layer=layer.name, columns=columns, batch_size=BATCH, use_pyarrow=True
            ) as (meta, batches),
        ):
            for batch in batches:
                rows = batch.to_pydict()
                wkb = rows.pop(meta["geometry_name"] or "wkb_geometry")
                tags = [
                    tags_of(dict(zip(columns, values)))
                    for values in zip(*(rows[name] for name in columns))
                ]
                yield features_of(shapes_of(wkb), tags or [{}] * len(wkb), default)


def _osm_features(path: Path) -> Iterator[Features]:
    """Everything that is drawn of an OpenStreetMap file, in parts of BATCH shapes: ways, closed or
    not, as lines, and multipolygon relations."""
    keys = {key for key, _ in (*AREAS, *WAYS)}
    telling = osmium.filter.KeyFilter(*keys)
    objects = osmium.FileProcessor(path).with_areas(telling).with_filter(telling)
    shapes, tags, skipped, relations = [], [], 0, 0
    factory = osmium.geom.WKBFactory()
    with _damage(path):
        for found in objects:
            if found.is_node() or found.is_area() and found.from_way():
                continue
            if found.is_relation():
                relations += found.tags.get("type") in ("multipolygon", "boundary")
                continue
            relations -= found.is_area()
            try:
                create = (
                    factory.create_multipolygon if found.is_area() else factory.create_linestring
                )
                shapes.append(create(found))
            except (
                RuntimeError,
                osmium.InvalidLocationError,
            ):  # rings that do not close; nodes that the file lacks
                skipped += 1
                continue
            tags.append({tag.k: tag.v for tag in found.tags if tag.k in KEYS})
            if len(shapes) == BATCH:
                yield features_of(shapely.from_wkb(shapes), tags)
                shapes, tags = [], []
    yield replace(features_of(shapely.from_wkb(shapes), tags), skipped=skipped + relations)


@contextmanager
def _damage(path: Path):
    """Turns what osmium says of a broken file into one InputError."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"{path}: expected an OpenStreetMap file that is whole, osmium says: {error}"
        ) from None


def _rows(copy: Path, box: Box) -> Features:
    """The features of a copy that touch a box."""
    with reading(copy):
        meta, _, wkb, data = pyogrio.raw.read(copy, bbox=box)
    columns = dict(zip(map(str, meta["fields"]), data))
    geometry = shapely.from_wkb(wkb)
    return Features(
        geometry,
        columns["class"].astype(np.uint8),
        columns["width"].astype(np.float32),
        columns["level"].astype(np.int8),
        columns["mended"].astype(bool),
        np.where(columns["width"] > 0, 0, shapely.area(geometry)),
    )
