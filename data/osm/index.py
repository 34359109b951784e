"""An indexed copy of a vector file that has no spatial index: made once, then read by windows.

A .osm.pbf, .osm or large GeoJSON file would cost a full scan for every tile. Its copy is a
FlatGeobuf file beside it, ``<name>.<digest>.fgb``, with what is drawn of it: shape, class, width,
level. A .json file of that name counts the shapes, and those that were mended or skipped.

The digest is over the file's size and time of change, the options and the code that decides what is
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
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import osmium
import pyarrow
import pyogrio
import shapely
from osmium.osm import Area, Relation, Way
from rasterio.crs import CRS

import data.osm.features
import data.osm.tag_tables
import data.osm.tags
import data.tiles.classes
import data.tiles.longitudes
from data.errors import InputError
from data.files import whole_file
from data.hashing import content_hash
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
from data.osm.tag_tables import DRAWN_KEYS, KEYS
from data.osm.vector_files import Layer, layers_of, reading, shapes_of, tags_of_columns

OSM_SUFFIXES = (".osm", ".pbf", ".osm.bz2", ".osm.gz")
OSM_CRS = "EPSG:4326"
LAYER = "features"
DEFAULT_GEOMETRY = "wkb_geometry"  # pyogrio's column when a file does not name its geometry
SMALL = 2**20  # bytes: a GeoJSON file up to this size is read anew for every tile
BATCH = 50_000  # shapes
DIGEST_LENGTH = 16  # hexadecimal digits
SCHEMA = pyarrow.schema(
    [
        ("class", pyarrow.int16()),
        ("width", pyarrow.float32()),
        ("level", pyarrow.int16()),
        ("mended", pyarrow.bool_()),
        pyarrow.field(
            "geometry", pyarrow.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}
        ),
    ]
)


@dataclass(frozen=True)
class _Source:
    """A vector file, and what is read of it."""

    path: Path
    layers: tuple[str, ...]  # empty: all that hold geometry
    default_tags: Tags  # stand in for shapes without a telling tag

    @property
    def is_osm(self) -> bool:
        """Whether the file holds OpenStreetMap's own objects."""
        return is_osm(self.path)


@dataclass
class Counts:
    """What a whole file holds: the .json file beside its copy."""

    shapes: int = 0  # drawn
    mended: int = 0
    skipped: int = 0  # shapes without an area that can be drawn
    classless: int = 0  # shapes without a tag that names a visible class
    incomplete_ways: int = 0  # of an OpenStreetMap file: they lack nodes
    incomplete_relations: int = 0  # they lack members, or their rings do not close

    def add(self, features: Features) -> None:
        """Count some more shapes."""
        self.shapes += len(features)
        self.mended += int(features.mended.sum())
        self.skipped += features.skipped
        self.classless += features.classless


def indexed(path: Path, layers: tuple[str, ...], default_tags: Tags) -> Path | None:
    """The indexed copy of a file that needs one, made now if it is not there.

    Several processes may ask at once: one makes the copy, the others wait. It appears whole or not
    at all.

    Args:
        path: the file.
        layers: those to read; empty for all.
        default_tags: stand in for shapes without a telling tag.

    Returns:
        The copy; None for a file that needs none.

    Raises:
        InputError: the file is damaged, or its folder cannot be written to.
    """
    source = _Source(path, layers, default_tags)
    with reading(path):
        is_small = path.stat().st_size <= SMALL
    if is_small and not source.is_osm:
        return None
    copy = path.with_name(f"{path.name}.{_digest(source)}.fgb")
    if copy.exists():
        return copy
    if not source.is_osm and all(layer.fast for layer in layers_of(path, layers)):
        return None
    with _alone(copy):
        if not copy.exists():
            _make(source, copy)
    return copy


def window(copy: Path, target: CRS, bounds: Box) -> Features:
    """What an indexed copy holds around ``bounds``, in ``target``."""
    (layer,) = layers_of(copy)
    parts = []
    for box in boxes(layer.crs, bounds, target=target):
        parts.append(place(_rows(copy, box), layer.crs, box, target=target))
    return join(parts)


def counts_of(copy: Path) -> Counts:
    """What the file of a copy holds as a whole."""
    return Counts(**json.loads(copy.with_suffix(".json").read_text()))


def check_osm(path: Path) -> None:
    """Raise InputError unless the file begins as an OpenStreetMap file does."""
    with _damage(path), osmium.io.Reader(path) as reader:
        reader.header()


def is_osm(path: Path) -> bool:
    """Whether the file's name says that it holds OpenStreetMap's own objects."""
    return path.name.endswith(OSM_SUFFIXES)


def _digest(source: _Source) -> str:
    state = source.path.stat()
    default_tags = sorted(source.default_tags.items())
    basis = [state.st_size, state.st_mtime_ns, source.layers, default_tags, _rules()]
    return content_hash(json.dumps(basis).encode())[:DIGEST_LENGTH]


@functools.cache
def _rules() -> str:
    """The code that decides what is drawn."""
    modules = (
        data.tiles.classes,
        data.tiles.longitudes,
        data.osm.tag_tables,
        data.osm.tags,
        data.osm.features,
    )
    counted = inspect.getsource(Counts)
    return counted + "".join(inspect.getsource(module) for module in modules)


@contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """Hold the lock on making this copy; the system frees it when the process ends."""
    lock = copy.with_name(f".{copy.stem}.lock")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(lock, "w"))
        except OSError as error:
            raise InputError(
                f"{copy.parent}: an indexed copy of {copy.name.rsplit('.', 2)[0]} must be written "
                f"here, but {error.strerror}; link the file into a folder that can be written to"
            ) from None
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(source: _Source, copy: Path) -> None:
    """Write the copy under another name, then rename it. The caller holds its lock."""
    counts = Counts()
    if source.is_osm:
        features = _osm_features(source.path, counts)
        crs = OSM_CRS
    else:
        features = _layer_features(source)
        crs = _one_crs(source)
    own_name = f"{copy.stem}.{socket.gethostname()}"
    for leftover in copy.parent.glob(f"{glob.escape(own_name)}.*.partial*"):
        leftover.unlink()  # of a process that was killed: its lock is ours
    partial = copy.with_name(f"{own_name}.{os.getpid()}.partial.fgb")
    failures: list[Exception] = []
    rows = pyarrow.RecordBatchReader.from_batches(SCHEMA, _batches(features, counts, failures))
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
            copy.with_suffix(".json").write_text(json.dumps(asdict(counts)) + "\n")
    except Exception:
        if failures:  # GDAL says then only that the stream broke off
            raise failures[0] from None
        raise


def _batches(
    parts: Iterator[Features], counts: Counts, failures: list[Exception]
) -> Iterator[pyarrow.RecordBatch]:
    """Features as the rows of the copy, counted on the way.

    An exception, which would be lost on its way through GDAL, is kept in ``failures``.
    """
    try:
        for features in parts:
            counts.add(features)
            yield _batch(features)
    except Exception as error:
        failures.append(error)
        raise


def _batch(features: Features) -> pyarrow.RecordBatch:
    """Features as rows of ``SCHEMA``."""
    columns = [
        features.index,
        features.width,
        features.level,
        features.mended,
        shapely.to_wkb(features.geometry),
    ]
    arrays = []
    for column, field in zip(columns, SCHEMA):
        arrays.append(pyarrow.array(column, field.type))
    return pyarrow.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _one_crs(source: _Source) -> str:
    """The CRS of all layers as WKT."""
    crs = {layer.crs.to_wkt() for layer in layers_of(source.path, source.layers)}
    if len(crs) > 1:
        raise InputError(
            f"{source.path}: has layers in different CRS and no spatial index; add a spatial index "
            "to each, or read each layer as a source of its own ('layers')"
        )
    return crs.pop()


def _layer_features(source: _Source) -> Iterator[Features]:
    """Everything in the layers, in parts of BATCH shapes."""
    for layer in layers_of(source.path, source.layers):
        for shapes, tags in _layer_rows(source.path, layer):
            yield within_a_turn(features_of(shapes, tags, source.default_tags), layer.crs)


def _layer_rows(path: Path, layer: Layer) -> Iterator[tuple[np.ndarray, list[Tags]]]:
    """All shapes of a layer with their tags, in parts of BATCH."""
    names = list(layer.columns)
    stream = pyogrio.open_arrow(
        path, layer=layer.name, columns=names, batch_size=BATCH, use_pyarrow=True
    )
    with reading(path), stream as (meta, batches):
        geometry = meta["geometry_name"]
        if not geometry:
            geometry = DEFAULT_GEOMETRY
        for batch in batches:
            rows = batch.to_pydict()
            wkb = rows[geometry]
            columns = [rows[name] for name in names]
            yield shapes_of(wkb), tags_of_columns(names, columns, count=len(wkb))


def _osm_features(path: Path, counts: Counts) -> Iterator[Features]:
    """Everything that is drawn of an OpenStreetMap file, in parts of BATCH shapes.

    Ways, closed or not, are lines; multipolygon relations are areas. An extract lacks nodes and
    members beyond its edge: what they belong to is left out and counted in ``counts``.
    """
    telling = osmium.filter.KeyFilter(*DRAWN_KEYS)
    entities = osmium.FileProcessor(path).with_areas(telling).with_filter(telling)
    factory = osmium.geom.WKBFactory()
    shapes: list[str] = []
    tags: list[Tags] = []
    with _damage(path):
        for entity in entities:
            if isinstance(entity, Relation):
                # Until osmium makes an area of it.
                is_area = entity.tags.get("type") in ("multipolygon", "boundary")
                counts.incomplete_relations += is_area
                continue
            if isinstance(entity, Area):
                if entity.from_way():
                    continue  # the closed way itself is read as a line
                counts.incomplete_relations -= 1
            elif not isinstance(entity, Way):
                continue
            try:
                shapes.append(_encoded(factory, entity))
            except (RuntimeError, osmium.InvalidLocationError):
                if isinstance(entity, Way):
                    counts.incomplete_ways += 1
                else:
                    counts.incomplete_relations += 1
                continue
            tags.append({tag.k: tag.v for tag in entity.tags if tag.k in KEYS})
            if len(shapes) == BATCH:
                yield _osm_part(shapes, tags)
                shapes = []
                tags = []
    yield _osm_part(shapes, tags)


def _osm_part(shapes: list[str], tags: list[Tags]) -> Features:
    """What is drawn of shapes in WKB."""
    features = features_of(shapely.from_wkb(shapes), tags)
    return within_a_turn(features, CRS.from_user_input(OSM_CRS))


def _encoded(factory: osmium.geom.WKBFactory, entity: Area | Way) -> str:
    """The shape of a way or of a relation's area as hexadecimal WKB."""
    if isinstance(entity, Area):
        return factory.create_multipolygon(entity)
    return factory.create_linestring(entity)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what osmium says of a broken file into one InputError."""
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
    width = columns["width"].astype(np.float32)
    return Features(
        geometry=geometry,
        index=columns["class"].astype(np.uint8),
        width=width,
        level=columns["level"].astype(np.int8),
        mended=columns["mended"].astype(bool),
        size=np.where(width > 0, 0, shapely.area(geometry)),
    )
