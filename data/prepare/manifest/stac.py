"""A STAC item collection of acquisitions and a list of tiles -> the records of a manifest.

A tile takes every item whose geometry touches it. What an item does not say stands in the object
"skysense" of the collection or of an item's properties, see ``SETTINGS``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.contract.grid import CELL, Grid
from data.prepare.contract.projection import to_degrees
from data.prepare.contract.source import Reader
from data.prepare.contract.spot import spot_of
from data.prepare.manifest.entry import Record
from data.prepare.manifest.mistakes import Mistakes
from data.prepare.manifest.stac_item import Acquisition, read_item
from data.prepare.manifest.tile_list import features_of, tile_rows
from data.suggest import did_you_mean
from data.tiles.longitudes import FARTHEST, HALF_TURN, POLE, cut_at_180

EDGES = 20  # pieces of a tile's edge that are straight in degrees
SETTINGS: dict[str, Any] = {
    "modality": str,
    "bands": dict,
    "mask": str,
    "masked": list,
    "units": str,
    "scale": int | float,
    "offset": int | float,
    "nodata": int | float,
    "licence": str,
    "attribution": str,
}
WORDS: dict[Any, str] = {str: "text", dict: "an object", list: "a list", int | float: "a number"}
# A source object and its folder -> its reader, or what is wrong with it.
MakeReader = Callable[[dict, Path], tuple[Reader | None, list[str]]]


@dataclass(frozen=True)
class _Source:
    """An item whose reader is made. The tiles that it touches share the reader."""

    reader: Reader
    licence: str
    attribution: str


def stac_records(
    path: Path, tiles: Path, make_reader: MakeReader, mistakes: Mistakes
) -> Iterator[Record]:
    """Join the items of a collection with a list of tiles.

    Args:
        path: the item collection.
        tiles: the list of tiles.
        make_reader: makes a reader of a source object.
        mistakes: takes items and tiles that are none, and tiles that no item touches.

    Yields:
        A record a tile. Its sources are readers already, one an item, shared by the tiles.

    Raises:
        InputError: a malformed file, or an item with a mistake.
    """
    collection = features_of(path)
    common = _settings(collection.get("skysense", {}), str(path))
    shapes = []
    sources = []
    for number, feature in enumerate(collection["features"]):
        where = f"{path}: features[{number}]"
        try:
            shape = _shape(feature.get("geometry"), where)
            settings = {**common, **_item_settings(feature, where)}
            acquisition = Acquisition(read_item(feature, path, where), settings, where)
        except InputError as error:
            mistakes.add(where, str(error))
            continue
        reader = None
        faults = acquisition.faults
        if not faults:
            reader, faults = make_reader(acquisition.keys, path.parent)
        mistakes.add(where, *faults)
        if reader is not None:
            shapes.append(shape)
            sources.append(_Source(reader, **acquisition.rights))
    mistakes.check()
    tree = shapely.STRtree(shapes)
    for where, tile in tile_rows(tiles, mistakes):
        try:
            touched = sorted(tree.query(_area(tile, where), predicate="intersects"))
        except InputError as error:
            mistakes.add(where, str(error))
            continue
        if not touched:
            mistakes.add(where, f"no item of {path.name} touches this tile")
            continue
        yield Record(where, {**tile, **_joined([sources[index] for index in touched])})


def _joined(sources: list[_Source]) -> dict:
    """The keys of a tile that come from its items; each licence and attribution is named once."""
    readers = []
    licences = []
    attributions = []
    for source in sources:
        readers.append(source.reader)
        if source.licence not in licences:
            licences.append(source.licence)
        if source.attribution not in attributions:
            attributions.append(source.attribution)
    return {
        "sources": readers,
        "licence": "; ".join(licences),
        "attribution": "; ".join(attributions),
    }


def _item_settings(feature: dict, where: str) -> dict:
    """The object "skysense" of an item's properties."""
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        raise InputError(f"{where}: expected a STAC item with properties, found none")
    return _settings(properties.get("skysense", {}), where)


def _settings(settings: object, where: str) -> dict:
    """The object "skysense": known keys, right types."""
    if not isinstance(settings, dict):
        raise InputError(f"{where}: skysense: expected an object, found {type(settings).__name__}")
    for key, value in settings.items():
        if key not in SETTINGS:
            raise InputError(
                f"{where}: skysense: unknown key {key!r}{did_you_mean(key, SETTINGS)}; "
                f"known: {sorted(SETTINGS)}"
            )
        if not isinstance(value, SETTINGS[key]):
            raise InputError(
                f"{where}: skysense: {key}: expected {WORDS[SETTINGS[key]]}, "
                f"found {type(value).__name__}"
            )
    return settings


def _shape(geometry: object, where: str) -> shapely.Geometry:
    """An item's geometry in lon/lat, cut at the 180th meridian where it crosses it."""
    try:
        shape = shapely.geometry.shape(geometry)
        sound = not shape.is_empty
    except (GEOSException, AttributeError, LookupError, TypeError, ValueError):
        sound = False
        shape = shapely.Polygon()
    if not sound:
        raise InputError(
            f"{where}: geometry: expected a GeoJSON geometry, found {str(geometry)[:60]}"
        )
    west, south, east, north = shape.bounds
    if max(-west, east) > FARTHEST or max(-south, north) > POLE:
        raise InputError(
            f"{where}: geometry: expected degrees, longitude first, found the bounds "
            f"{[west, south, east, north]}"
        )
    cut = cut_at_180(shape)
    if cut is None:
        raise InputError(
            f"{where}: geometry: its ring goes round a pole; add corners at latitude 90 or -90, "
            "from longitude 180 to -180"
        )
    if not cut.is_valid:
        cut = shapely.make_valid(cut)
    return cut


def _area(tile: dict, where: str) -> shapely.Geometry:
    """The square of a tile in lon/lat; InputError when its row names none."""
    spot = spot_of(tile, where)
    if spot is None:
        raise InputError(f"{where}: expected centre and cells, or a footprint")
    return _outline(spot.grid())


def _outline(grid: Grid) -> shapely.Geometry:
    """A grid's square in lon/lat, cut at the 180th meridian where it crosses it."""
    square = shapely.segmentize(shapely.box(*grid.bounds), grid.cells * CELL / EDGES)

    def carry(points: np.ndarray) -> np.ndarray:
        return np.column_stack(to_degrees(grid.crs).transform(*points.T))

    outline = shapely.transform(square, carry)
    cut = cut_at_180(outline)
    if cut is not None:
        return cut
    _, south, _, north = outline.bounds  # it holds a pole
    if south > 0:
        return shapely.box(-HALF_TURN, south, HALF_TURN, POLE)
    return shapely.box(-HALF_TURN, -POLE, HALF_TURN, north)
