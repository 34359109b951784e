"""A STAC item collection of acquisitions and a list of tiles -> the records of a manifest.

A tile takes every item whose geometry touches it. What an item does not say stands in the object
"skysense" of the collection or of an item's properties, see ``SETTINGS``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import shapely
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.contract.source import Reader
from data.prepare.manifest.entry import Record
from data.prepare.manifest.mistakes import Mistakes
from data.prepare.manifest.stac_item import Acquisition, read_item
from data.prepare.manifest.stac_sources import ItemSource, outline, record_keys
from data.prepare.manifest.tile_list import features_of, tile_rows
from data.prepare.place.spot import spot_of
from data.suggest import did_you_mean
from data.tiles.longitudes import FARTHEST, POLE, cut_at_180

SETTINGS: dict[str, Any] = {
    "modality": str,
    "bands": dict,
    "mask": str,
    "mask_band": str | int,
    "masked": list,
    "masked_bits": list,
    "units": str,
    "scale": int | float,
    "offset": int | float,
    "nodata": int | float,
    "licence": str,
    "attribution": str,
}
COMMON_SETTINGS: dict[str, Any] = {**SETTINGS, "scene": dict}  # of the collection
WORDS: dict[Any, str] = {
    str: "text",
    dict: "an object",
    list: "a list",
    int | float: "a number",
    str | int: "text or a number",
}
# A source object and its folder -> its reader, or what is wrong with it.
MakeReader = Callable[[dict, Path], tuple[Reader | None, list[str]]]


def stac_records(
    path: Path, tiles: Path | None, make_reader: MakeReader, mistakes: Mistakes
) -> Iterator[Record]:
    """Join the items of a collection with a list of tiles, or with the scene that they are.

    Args:
        path: the item collection.
        tiles: the list of tiles; None where the collection has the key ``scene``.
        make_reader: makes a reader of a source object.
        mistakes: takes items and tiles that are none, and tiles that no item touches.

    Yields:
        A record a tile, or one of a scene. Its sources are readers already, one an item, shared by
        the tiles.

    Raises:
        InputError: a malformed file, an item with a mistake, or nothing says which tiles to make.
    """
    collection = features_of(path)
    common = dict(_settings(collection.get("skysense", {}), str(path), COMMON_SETTINGS))
    scene = common.pop("scene", None)
    _check_tiles_or_scene(path, tiles, scene)
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
            modality = acquisition.keys["modality"]
            sources.append(ItemSource(reader, modality, shape, **acquisition.rights))
    mistakes.check()
    if tiles is None:
        yield from _scene_record(path, scene, sources, mistakes)
        return
    tree = shapely.STRtree([source.shape for source in sources])
    for where, tile in tile_rows(tiles, mistakes):
        try:
            touched = sorted(tree.query(_area(tile, where), predicate="intersects"))
        except InputError as error:
            mistakes.add(where, str(error))
            continue
        if not touched:
            mistakes.add(where, f"no item of {path.name} touches this tile")
            continue
        own = [sources[index] for index in touched]
        yield Record(where, {**tile, **record_keys(own)})


def _check_tiles_or_scene(path: Path, tiles: Path | None, scene: object) -> None:
    """Raise InputError unless exactly one of both says which tiles to make."""
    if (tiles is None) != (scene is None):
        return
    if tiles is not None:
        raise InputError(
            f"{path}: expected a list of tiles or the key 'scene' in 'skysense', found both; leave "
            f"one out"
        )
    raise InputError(
        f"{path}: a STAC item collection says what was acquired, not which tiles to make; give a "
        'list of tiles too (--tiles), or cut all of it: "skysense": {"scene": {"cells": 32}}'
    )


def _scene_record(
    path: Path, scene: dict, sources: Sequence[ItemSource], mistakes: Mistakes
) -> Iterator[Record]:
    """One record of all items, which are cut as the key ``scene`` of the collection says."""
    where = f"{path}: skysense"
    if not sources:
        mistakes.add(str(path), "expected at least one item, found none")
        return
    keys = dict(scene)
    key = keys.pop("key", re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_") or "scene")
    if "grid" in keys:
        mistakes.add(where, "scene: grid: the items themselves give it; leave the key out")
    record = {"key": key, "scene": keys, **record_keys(sources)}
    yield Record(where, record, items=tuple(sources))


def _item_settings(feature: dict, where: str) -> dict:
    """The object "skysense" of an item's properties."""
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        raise InputError(f"{where}: expected a STAC item with properties, found none")
    return _settings(properties.get("skysense", {}), where)


def _settings(settings: object, where: str, known: dict[str, Any] = SETTINGS) -> dict:
    """The object "skysense": known keys, right types."""
    if not isinstance(settings, dict):
        raise InputError(f"{where}: skysense: expected an object, found {type(settings).__name__}")
    for key, value in settings.items():
        if key not in known:
            raise InputError(
                f"{where}: skysense: unknown key {key!r}{did_you_mean(key, known)}; "
                f"known: {sorted(known)}"
            )
        if not isinstance(value, known[key]):
            raise InputError(
                f"{where}: skysense: {key}: expected {WORDS[known[key]]}, "
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
    return outline(spot.grid())
