"""The zarr archive: one group a tile under ``<archive>/tiles/<key>``, each whole or not there.

A tile is written under a temporary name that no key can have, another one each time, and moved to
its place by one rename. So a killed job never leaves half a tile that a reader could meet, and two
workers that write the same tile, as happens when one has lost its network, do not mix. Against a
power cut see data/jobs/journal.py: to force every file of every tile to the disk takes longer than
to write it.
"""

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.array_spec import ArrayConfigLike

from data.errors import InputError
from data.hashing import new_hash
from data.tiles.check import KEY, check_tile
from data.tiles.classes import class_table
from data.tiles.definitions import Definition, parse_sensors, sensors_of
from data.tiles.modalities import MODALITIES
from data.tiles.tile import Tile

FORMAT = "skysense-archive"
VERSION = 2
CHUNK_BYTES = 4 * 2**20  # series are cut along time into chunks of about this size
HR_CHUNK = 512  # pixels a side
# A chunk without anything is a file too: to compare each with zero first, as zarr does by default,
# takes a third as long as to compress it, and hardly one is.
EVERY_CHUNK: ArrayConfigLike = {"write_empty_chunks": True}
METADATA = ("crs", "transform", "cells", "lon", "lat", "dates", "source", "licence", "attribution")
SPLIT = "split"  # attribute of tiles that have one
PARTIAL = ".partial-"  # begins the name of a tile that is being written
MASK = "_valid"  # ends the name of a sensor's mask
SENSORS = "sensors"  # attribute with the descriptions of sensors


def create_archive(
    path: str | Path, sensors: Sequence[Definition] = (), *, overwrite: bool = False
) -> Path:
    """Make an empty archive.

    Args:
        path: a folder that is empty or not there.
        sensors: the sensors that its tiles may have beside the built-in ones, and built-in ones
            with other statistics.
        overwrite: replace an archive that is there.

    Raises:
        InputError: ``path`` holds anything that is not an archive of this program, or an archive
            while ``overwrite`` is false; or a sensor contradicts one that this process knows.
    """
    MODALITIES.add(sensors_of(sensors), str(path))
    path = Path(path)
    check_writable(path, overwrite=overwrite)
    if path.exists() and any(path.iterdir()):
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    zarr.open_group(str(path), mode="w", zarr_format=3, attributes=_root_attributes(sensors))
    zarr.open_group(str(path / "tiles"), mode="w", zarr_format=3)
    return path


def is_made_for(path: str | Path, sensors: Sequence[Definition]) -> bool:
    """Whether an archive is as ``create_archive`` would make it, with its classes and sensors."""
    return _attributes(Path(path)) == _root_attributes(sensors)


def _root_attributes(sensors: Sequence[Definition]) -> dict[str, Any]:
    """What all tiles of an archive share, as JSON has it."""
    attributes: dict[str, Any] = {"format": FORMAT, "version": VERSION, "classes": class_table()}
    if sensors:
        attributes[SENSORS] = [sensor.to_json() for sensor in sensors]
    return attributes


def check_writable(path: str | Path, *, overwrite: bool) -> None:
    """Check that an archive may be written at ``path``; touches nothing.

    Raises:
        InputError: it may not.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(
            f"{path}: expected a folder for the archive, found a file; choose another place"
        )
    if not any(path.iterdir()):
        return
    if not is_archive(path):
        raise InputError(
            f"{path}: holds files that are not a tile archive; choose an empty or new folder"
        )
    if not overwrite:
        raise InputError(f"{path}: already a tile archive; pass --overwrite to replace it")


def is_archive(path: str | Path) -> bool:
    """Whether ``path`` is a zarr group that ``create_archive`` made."""
    return _attributes(Path(path)).get("format") == FORMAT


def _attributes(path: Path) -> dict[str, Any]:
    """The attributes of a group; empty where there is none.

    Not by zarr, which takes more than a millisecond to open a group: each tile asks twice.
    """
    try:
        metadata = json.loads((path / "zarr.json").read_bytes())
        return dict(metadata["attributes"])
    except (OSError, ValueError, KeyError, TypeError):  # no file, no JSON, no metadata of a group
        return {}


def check_archive(path: str | Path) -> Path:
    """The archive's path. From then on this process knows the sensors that the archive describes.

    Raises:
        InputError: there is no archive, or one of another format version, or its sensors
            contradict those that this process knows.
    """
    path = Path(path)
    archive_sensors(path)
    return path


def archive_sensors(path: str | Path) -> list[Definition]:
    """The sensors that an archive describes; see ``check_archive``."""
    path = Path(path)
    attributes = _attributes(path)
    if attributes.get("format") != FORMAT:
        raise InputError(f"{path}: expected a tile archive (made by skysense prepare), found none")
    version = attributes.get("version")
    if version != VERSION:
        raise InputError(
            f"{path}: archive version {version}, this program reads {VERSION}; "
            f"prepare the data again"
        )
    sensors = parse_sensors({SENSORS: attributes.get(SENSORS, [])}, str(path))
    MODALITIES.add(sensors_of(sensors), str(path))
    return sensors


def write_tile(archive: str | Path, tile: Tile) -> str:
    """Store one tile.

    Returns:
        The tile's digest.

    Raises:
        InputError: the tile is malformed, it has a sensor that is neither built in nor described
            by the archive, or another tile with its key is already there.
    """
    archive = Path(archive)
    described = [sensor.key for sensor in archive_sensors(archive)]
    check_tile(tile)
    for sensor in MODALITIES.own():
        if sensor.key in tile.arrays and sensor.key not in described:
            raise InputError(
                f"{archive}: tile {tile.key!r} has the sensor {sensor.key!r}, which the archive "
                f"does not describe; make the archive with its description"
            )
    place = archive / "tiles" / tile.key
    partial = place.with_name(f"{PARTIAL}{tile.key}-{secrets.token_hex(4)}")
    digest = tile_digest(tile)
    attributes = {**_metadata(tile), "digest": digest}
    group = zarr.open_group(str(partial), mode="w", zarr_format=3, attributes=attributes)
    for name, array in _members(tile).items():
        group.create_array(
            name,
            data=np.ascontiguousarray(array),
            chunks=_chunks(array),
            compressors=[ZstdCodec(level=9, checksum=True)],
            config=EVERY_CHUNK,
        )
    try:
        os.rename(partial, place)
    except OSError:
        shutil.rmtree(partial)
        if not place.exists():
            raise
        if stored_digest(archive, tile.key) != digest:
            raise InputError(
                f"{archive}: another tile {tile.key!r} is there already; keys must be unique"
            ) from None
    return digest


def read_tile(archive: str | Path, key: str) -> Tile:
    """One tile, whole.

    Raises:
        InputError: the archive has no such key.
    """
    group = zarr.open_group(str(_place(archive, key)), mode="r", zarr_format=3)
    check_archive(archive)
    arrays: dict[str, np.ndarray] = {}
    valid: dict[str, np.ndarray] = {}
    for name, member in group.arrays():
        array = np.asarray(member[:])
        if name.endswith(MASK):
            valid[name.removesuffix(MASK)] = array
        else:
            arrays[name] = array
    metadata: dict[str, Any] = {name: group.attrs[name] for name in METADATA}
    metadata["transform"] = tuple(metadata["transform"])
    metadata[SPLIT] = group.attrs.get(SPLIT, "")
    return Tile(key=key, arrays=arrays, valid=valid, **metadata)


def discard_tile(archive: str | Path, key: str) -> None:
    """Remove a tile that may be there."""
    place = Path(archive) / "tiles" / key
    if place.exists():
        shutil.rmtree(place)


def discard_partial_tiles(archive: str | Path) -> None:
    """Remove what killed workers have left. No other one may be at work."""
    with os.scandir(Path(archive) / "tiles") as items:
        names = [item.name for item in items if item.name.startswith(PARTIAL)]
    for name in names:
        shutil.rmtree(Path(archive) / "tiles" / name)


def tile_digest(tile: Tile) -> str:
    """Hash all that a tile holds: BLAKE2b of 128 bits, in hexadecimal digits.

    It covers one JSON line of key and metadata, keys sorted. Then follow, for each array in the
    order of the names, a JSON line ``[name, dtype, shape]`` and its bytes in C order, little
    endian.
    """
    digest = new_hash(_line({"key": tile.key, **_metadata(tile)}))
    for name, array in sorted(_members(tile).items()):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(_line([name, array.dtype.str, list(array.shape)]))
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


@dataclass(frozen=True)
class Stamp:
    """What is known of a tile without its pixels."""

    digest: str  # that the tile had when it was written
    cells: int  # along a side
    split: str  # empty: nobody has said it


def stored_stamp(archive: str | Path, key: str) -> Stamp:
    """Digest, size and split of a tile, from its metadata alone.

    Raises:
        InputError: the archive has no such key.
    """
    metadata = json.loads((_place(archive, key) / "zarr.json").read_bytes())
    attributes = metadata["attributes"]
    return Stamp(attributes["digest"], attributes["cells"], attributes.get(SPLIT, ""))


def stored_digest(archive: str | Path, key: str) -> str:
    """The digest that a tile had when it was written; see ``stored_stamp``."""
    return stored_stamp(archive, key).digest


def is_intact(archive: str | Path, key: str, digest: str) -> bool:
    """Whether a tile is there and has the content of ``digest``."""
    try:
        return tile_digest(read_tile(archive, key)) == digest
    # after a power cut any file may be empty or cut short, and every library says so differently
    except Exception:
        return False


def tile_keys(archive: str | Path) -> list[str]:
    """The keys of all published tiles, sorted."""
    keys = []
    for entry in (check_archive(archive) / "tiles").iterdir():
        if entry.is_dir() and KEY.fullmatch(entry.name):
            keys.append(entry.name)
    return sorted(keys)


def _place(archive: str | Path, key: str) -> Path:
    """The folder of a published tile."""
    place = Path(archive) / "tiles" / key
    if not KEY.fullmatch(key) or not place.is_dir():
        raise InputError(f"{archive}: no tile {key!r}; tile_keys lists what is there")
    return place


def _chunks(array: np.ndarray) -> tuple[int, ...]:
    """Chunk shape: squares of a big raster, whole frames of a series."""
    if array.shape[-1] > HR_CHUNK:
        return (*array.shape[:-2], HR_CHUNK, HR_CHUNK)
    frame_bytes = max(1, array.nbytes // array.shape[0])
    frames = max(1, CHUNK_BYTES // frame_bytes)
    return (min(array.shape[0], frames), *array.shape[1:])


def _metadata(tile: Tile) -> dict[str, Any]:
    """What stands in a tile's attributes, as JSON has it."""
    metadata = {name: getattr(tile, name) for name in METADATA}
    metadata["transform"] = list(metadata["transform"])
    if tile.split:
        metadata[SPLIT] = tile.split
    return metadata


def _members(tile: Tile) -> dict[str, np.ndarray]:
    """All arrays of a tile by the name that they have in its group."""
    masks = {name + MASK: mask for name, mask in tile.valid.items()}
    return {**tile.arrays, **masks}


def _line(value: dict | list) -> bytes:
    """Canonical JSON."""
    return json.dumps(value, sort_keys=True).encode() + b"\n"
