"""Whether a tile is as ``data/tiles/tile.py`` says."""

import re

import numpy as np

from data.errors import InputError
from data.suggest import suggest
from data.tiles.modalities import IMAGE, MODALITIES
from data.tiles.splits import SPLITS
from data.tiles.tile import LABEL_PIXELS, Tile

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # no dot: tar members are named <key>.<field>


def check_tile(tile: Tile) -> None:
    """Check key, split, place, shapes, types and dates of a tile.

    Raises:
        InputError: one of them is wrong, or the tile has no sensor at all.
    """
    if not KEY.fullmatch(tile.key):
        raise InputError(f"tile key {tile.key!r}: expected letters, digits, '_' and '-' only")
    if tile.split and tile.split not in SPLITS:
        raise InputError(f"tile {tile.key!r}: split {tile.split!r}: expected one of {list(SPLITS)}")
    if len({tile.crs == "", tile.lon is None, tile.lat is None}) > 1:
        raise InputError(
            f"tile {tile.key!r}: expected a CRS, a longitude and a latitude, or none of them, "
            f"found {tile.crs!r}, {tile.lon}, {tile.lat}"
        )
    for name, array in tile.arrays.items():
        _check_array(tile, name, array)
    for name in tile.modalities:
        _check_frames(tile, name)
    if not tile.modalities:
        raise InputError(f"tile {tile.key!r}: has no modality at all")


def _check_array(tile: Tile, name: str, array: np.ndarray) -> None:
    """Check shape and type of one array."""
    found = f"tile {tile.key!r}: {name} is {array.dtype} {array.shape}"
    if name not in MODALITIES and name != "labels":
        raise InputError(f"{found}, expected no such array{suggest(name, MODALITIES)}")
    shape = _expected_shape(tile, name)
    dtype = np.dtype(np.uint8)
    if name in MODALITIES:
        dtype = np.dtype(MODALITIES[name].dtype)
    if array.shape != shape or array.dtype != dtype:
        raise InputError(f"{found}, expected {dtype} {shape}")


def _expected_shape(tile: Tile, name: str) -> tuple[int, ...]:
    """The shape that an array of a tile must have."""
    if name == "labels":
        side = LABEL_PIXELS * tile.cells
        return (side, side)
    sensor = MODALITIES[name]
    side = sensor.pixels * tile.cells
    frame = (len(sensor.bands), side, side)
    if name == IMAGE:
        return frame
    return (len(tile.dates.get(name, [])), *frame)


def _check_frames(tile: Tile, name: str) -> None:
    """Check mask and dates of one sensor."""
    mask = tile.valid.get(name)
    dates = tile.dates.get(name, [])
    shape = (len(dates), tile.cells, tile.cells)
    if mask is None or mask.dtype != bool or mask.shape != shape or not dates:
        found = "missing"
        if mask is not None:
            found = f"{mask.dtype} {mask.shape}"
        raise InputError(
            f"tile {tile.key!r}: valid[{name!r}] is {found}, expected bool {shape} "
            f"with one date a frame"
        )
    if dates != sorted(dates):
        raise InputError(f"tile {tile.key!r}: dates of {name} are not in time order")
