"""The zarr archive: one group a tile under ``<archive>/tiles/<key>``, each published whole or not
at all.

A tile is written under a temporary name that no key can have and moved to its place by one rename,
so a killed job never leaves half a tile that a reader could meet. (Against a power cut see
data/jobs/journal.py: to force every file of every tile to the disk takes longer than to write it.)
"""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from data.errors import InputError
from data.hashing import new_hash
from data.tiles.classes import class_table
from data.tiles.tile import HR_PIXELS, LABEL_PIXELS, Tile

FORMAT = "skysense-archive"
VERSION = 2
CHUNK_BYTES = 4 * 2**20  # series are cut along time into chunks of about this size
HR_CHUNK = 512  # pixels a side
METADATA = ("crs", "transform", "cells", "lon", "lat", "dates", "source", "licence", "attribution")
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # no dot: tar members are named <key>.<field>


def create_archive(path: str | Path, overwrite: bool = False) -> Path:
    """Make an empty archive. Raises InputError when ``path`` holds anything that is not an archive
    of ours, or an archive while ``overwrite`` is false."""
    path = Path(path)
    check_writable(path, overwrite)
    if path.exists() and any(path.iterdir()):
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {"format": FORMAT, "version": VERSION, "classes": class_table()}
    zarr.open_group(str(path), mode="w", zarr_format=3, attributes=attributes)
    zarr.open_group(str(path / "tiles"), mode="w", zarr_format=3)
    return path


def check_writable(path: str | Path, overwrite: bool) -> None:
    """Raise InputError if an archive must not be written at ``path``; touches nothing."""
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
    """Whether ``path`` is a zarr group that create_archive made."""
    if not (Path(path) / "zarr.json").is_file():
        return False
    try:
        return zarr.open_group(str(path), mode="r").attrs.get("format") == FORMAT
    except (
        ValueError,
        KeyError,
        FileNotFoundError,
    ):  # a zarr.json that is no group, or no JSON at all
        return False


def check_archive(path: str | Path) -> Path:
    """The archive's path; InputError when it is none, or of another format version."""
    path = Path(path)
    if not is_archive(path):
        raise InputError(f"{path}: expected a tile archive (made by skysense prepare), found none")
    version = zarr.open_group(str(path), mode="r").attrs.get("version")
    if version != VERSION:
        raise InputError(
            f"{path}: archive version {version}, this program reads {VERSION}; prepare the data again"
        )
    return path


def write_tile(archive: str | Path, tile: Tile) -> str:
    """Store one tile; returns its digest. Raises InputError for a malformed tile or a key that is
    already there."""
    check_tile(tile)
    archive = check_archive(archive)
    place, partial = archive / "tiles" / tile.key, archive / "tiles" / f".partial-{tile.key}"
    if place.exists():
        raise InputError(f"{archive}: tile {tile.key!r} is there already; keys must be unique")
    shutil.rmtree(partial, ignore_errors=True)
    digest = tile_digest(tile)
    group = zarr.open_group(
        str(partial), mode="w", zarr_format=3, attributes={**_metadata(tile), "digest": digest}
    )
    for name, array in _members(tile).items():
        group.create_array(
            name,
            data=np.ascontiguousarray(array),
            chunks=_chunks(array),
            compressors=[ZstdCodec(level=9, checksum=True)],
        )
    os.rename(partial, place)
    return digest


def read_tile(archive: str | Path, key: str) -> Tile:
    """One tile, whole. Raises InputError when the archive has no such key."""
    group = zarr.open_group(str(_place(archive, key)), mode="r", zarr_format=3)
    members = {name: array[:] for name, array in group.arrays()}
    attributes = {name: group.attrs[name] for name in METADATA}
    attributes["transform"] = tuple(attributes["transform"])
    valid = {
        name.removesuffix("_valid"): array
        for name, array in members.items()
        if name.endswith("_valid")
    }
    arrays = {name: array for name, array in members.items() if not name.endswith("_valid")}
    return Tile(key=key, arrays=arrays, valid=valid, **attributes)


def discard_tile(archive: str | Path, key: str) -> None:
    """Remove what there is of a tile, whole or half-written."""
    for name in (key, f".partial-{key}"):
        if (Path(archive) / "tiles" / name).exists():
            shutil.rmtree(Path(archive) / "tiles" / name)


def tile_digest(tile: Tile) -> str:
    """BLAKE2b, 128 bits, in hex, over all that a tile holds: one JSON line of key and metadata,
    keys sorted; then for each array in order of its name a JSON line [name, dtype, shape] and its
    bytes, C order, little endian."""
    digest = new_hash(_line({"key": tile.key, **_metadata(tile)}))
    for name, array in sorted(_members(tile).items()):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(_line([name, array.dtype.str, list(array.shape)]))
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def stored_digest(archive: str | Path, key: str) -> str:
    """The digest that a tile had when it was written, from its metadata alone. Raises InputError as
    read_tile does."""
    return json.loads((_place(archive, key) / "zarr.json").read_bytes())["attributes"]["digest"]


def tile_keys(archive: str | Path) -> list[str]:
    """The keys of all published tiles, sorted."""
    entries = (check_archive(archive) / "tiles").iterdir()
    return sorted(entry.name for entry in entries if entry.is_dir() and KEY.fullmatch(entry.name))


def check_tile(tile: Tile) -> None:
    """Raise InputError unless arrays, masks and dates of a tile have the shapes and types of
    data/tiles/tile.py."""
    if not KEY.fullmatch(tile.key):
        raise InputError(f"tile key {tile.key!r}: expected letters, digits, '_' and '-' only")
    n = tile.cells
    frames = {name: len(tile.dates.get(name, [])) for name in ("hr", "ms", "sar")}
    expected = {
        "hr": ((3, HR_PIXELS * n, HR_PIXELS * n), np.uint8),
        "ms": ((frames["ms"], 10, n, n), np.uint16),
        "sar": ((frames["sar"], 2, n, n), np.float32),
        "labels": ((LABEL_PIXELS * n, LABEL_PIXELS * n), np.uint8),
    }
    for name, array in tile.arrays.items():
        if name not in expected or (array.shape, array.dtype) != (
            expected[name][0],
            np.dtype(expected[name][1]),
        ):
            raise InputError(
                f"tile {tile.key!r}: {name} is {array.dtype} {array.shape}, "
                f"expected {expected.get(name, 'no such array')}"
            )
    for name in tile.modalities:
        mask, dates = tile.valid.get(name), tile.dates.get(name, [])
        if mask is None or mask.dtype != bool or mask.shape != (len(dates), n, n) or not dates:
            found = None if mask is None else (str(mask.dtype), mask.shape)
            raise InputError(
                f"tile {tile.key!r}: valid[{name!r}] is {found}, expected bool {(len(dates), n, n)} "
                f"with one date a frame"
            )
        if dates != sorted(dates):
            raise InputError(f"tile {tile.key!r}: dates of {name} are not in time order")
    if not tile.modalities:
        raise InputError(f"tile {tile.key!r}: has no modality at all")


def _chunks(array: np.ndarray) -> tuple[int, ...]:
    """Chunk shape: squares of a big raster, whole frames of a series."""
    if array.shape[-1] > HR_CHUNK:
        return (*array.shape[:-2], HR_CHUNK, HR_CHUNK)
    frame_bytes = max(1, array.nbytes // array.shape[0])
    return (min(array.shape[0], max(1, CHUNK_BYTES // frame_bytes)), *array.shape[1:])


def is_intact(archive: str | Path, key: str, digest: str) -> bool:
    """Whether a tile is there and has the content of ``digest``."""
    try:
        return tile_digest(read_tile(archive, key)) == digest
    # after a power cut any file may be empty or cut short, and every library says so differently
    except Exception:
        return False


def _place(archive: str | Path, key: str) -> Path:
    """The folder of a published tile."""
    place = Path(archive) / "tiles" / key
    if not KEY.fullmatch(key) or not place.is_dir():
        raise InputError(f"{archive}: no tile {key!r}; tile_keys lists what is there")
    return place


def _metadata(tile: Tile) -> dict:
    """What stands in a tile's attributes, as JSON has it."""
    return {
        name: list(value) if isinstance(value := getattr(tile, name), tuple) else value
        for name in METADATA
    }


def _members(tile: Tile) -> dict[str, np.ndarray]:
    """All arrays of a tile by the name that they have in its group."""
    return {**tile.arrays, **{f"{name}_valid": mask for name, mask in tile.valid.items()}}


def _line(value: dict | list) -> bytes:
    """Canonical JSON."""
    return json.dumps(value, sort_keys=True).encode() + b"\n"
