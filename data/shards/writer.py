"""The writing side of the training format: plain tars, a sidecar index beside each, and a manifest
written last.

``shard-000000.tar`` holds members ``<key>.<field>`` that stock ``webdataset`` reads: ``meta.json``,
``labels.png``, ``hr.jpg`` (or ``hr.png``), of large tiles its reductions ``hr_2.jpg``,
``hr_4.jpg``, ..., and the stacks ``ms.blosc``, ``ms_valid.zst``, ... (``data/shards/stacks.py``),
so that only the drawn acquisitions are read and decoded. ``shard-000000.index.jsonl`` says where
each member and acquisition lies and its
CRC32C: the first line where the lines of the samples lie, then one line a sample, so that one is
read without the others. Equal tiles and options give equal bytes. Without its manifest a folder is
no dataset.
"""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import InputError
from data.files import PARTIAL, force, whole_file, write_whole
from data.hashing import checksum, content_hash
from data.seeded import generator
from data.shards.files import (
    FORMAT,
    HR_SUFFIXES,
    MANIFEST,
    VERSION,
    hr_field,
    index_name,
    manifest_hash,
    tar_name,
)
from data.shards.stacks import MASKS, SERIES, encode_masks, encode_series
from data.tiles.archive import check_tile
from data.tiles.classes import class_table
from data.tiles.regions import RegionTable
from data.tiles.tile import HR_PIXELS, Tile

KEY_LENGTH = 80  # a tar header has 100 bytes for key and field
# pixels: a global view of 512 that shows a third of a tile needs no finer one (docs/codecs.md)
LEAST_SIDE = 1024
REDUCED_QUALITY = (
    90  # of reductions, with colour at full size: fewer bytes and less loss than 95 with it halved
)


@dataclass(frozen=True)
class ShardOptions:
    """How tiles are packed; with the tiles it decides every byte."""

    samples_per_shard: int = 256
    seed: int = 0  # of the order in which tiles are packed
    hr_codec: str = "jpeg"
    quality: int = 95

    def check(self) -> None:
        """Raises InputError for what cannot be."""
        if (
            self.hr_codec not in HR_SUFFIXES
            or not 1 <= self.quality <= 100
            or self.samples_per_shard < 1
        ):
            raise InputError(
                f"shards: expected hr_codec in {sorted(HR_SUFFIXES)}, quality in 1..100 and "
                f"samples_per_shard >= 1, found {self.hr_codec!r}, {self.quality}, "
                f"{self.samples_per_shard}"
            )


def write_shards(
    tiles: Iterable[Tile],
    out: str | Path,
    options: ShardOptions = ShardOptions(),
    overwrite: bool = False,
) -> dict:
    """Pack tiles, shuffled by the options' seed, into ``out`` and return the manifest.

    A Sequence may load its tiles lazily and is asked for one at a time; any other iterable is held
    in memory. Raises InputError for malformed tiles, repeated keys, or a folder that must not be
    written."""
    options.check()
    out, tiles = Path(out), tiles if isinstance(tiles, Sequence) else list(tiles)
    if not tiles:
        raise InputError(f"{out}: no tiles to pack; prepare an archive first")
    claim(out, overwrite)
    sequence = _once(tiles[i] for i in packing_order(len(tiles), options.seed))
    records = [
        write_shard(out, number, islice(sequence, options.samples_per_shard), options)
        for number in range(-(-len(tiles) // options.samples_per_shard))
    ]
    return write_manifest(out, records, options)


def packing_order(count: int, seed: int) -> list[int]:
    """Position in the shards -> number of the tile."""
    return [int(i) for i in generator(seed, "shards").permutation(count)]


def claim(out: Path, overwrite: bool) -> None:
    """Make ``out`` a folder without shards. Only files that carry our names are ever removed;
    half-written ones always.

    Raises InputError when there are shards and ``overwrite`` is false, or a file lies at ``out``.
    """
    if out.exists() and not out.is_dir():
        raise InputError(
            f"{out}: expected a folder for the shards, found a file; choose another place"
        )
    out.mkdir(parents=True, exist_ok=True)
    ours = [
        out / MANIFEST,
        *out.glob("shard-??????.tar"),
        *out.glob("shard-??????.index.jsonl"),
    ]  # manifest goes first
    ours = [path for path in ours if path.exists()]
    if ours and not overwrite:
        raise InputError(
            f"{out}: holds shards already (found {ours[0].name}); pass --overwrite to replace them"
        )
    for path in [*ours, *out.glob(MANIFEST + PARTIAL), *out.glob(f"shard-??????.*{PARTIAL}")]:
        path.unlink()


def write_shard(out: Path, number: int, tiles: Iterable[Tile], options: ShardOptions) -> dict:
    """Write one tar and its index, each published by a rename, the index last. Returns the shard's
    record:

    ``name``, ``size``, ``samples``, ``index_size``, ``index_hash``, ``head`` ([size, crc32c] of the
    index's first line), ``places`` (lon, lat of each sample) and ``credits`` ([licence,
    attribution, samples]). Raises InputError for a malformed tile."""
    name, entries, credits = f"shard-{number:06d}", [], Counter()
    with whole_file(out / tar_name(name)) as scratch, open(scratch, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for tile in tiles:
                check_tile(tile)
                if len(tile.key) > KEY_LENGTH:
                    raise InputError(
                        f"tile {tile.key!r}: a key in a shard has at most {KEY_LENGTH} characters"
                    )
                entries.append(_add(tar, file, tile, options))
                credits[tile.licence, tile.attribution] += 1
        force(file)
        size = file.tell()
    index, head = _index(name, entries)
    write_whole(out / index_name(name), index, durable=True)
    return {
        "name": name,
        "size": size,
        "samples": len(entries),
        "index_size": len(index),
        "index_hash": content_hash(index),
        "head": head,
        "places": [[entry["lon"], entry["lat"]] for entry in entries],
        "credits": [[*credit, count] for credit, count in sorted(credits.items())],
    }


def write_manifest(out: Path, records: Sequence[dict], options: ShardOptions) -> dict:
    """Make a dataset of shards that were written: give every sample its region, sum up credits,
    write the manifest."""
    regions = RegionTable.from_points(
        [tuple(place) for record in records for place in record["places"]]
    )
    credits = Counter()
    for record in records:
        for licence, attribution, count in record["credits"]:
            credits[licence, attribution] += count
    shards = [
        {
            **{
                name: record[name]
                for name in ("name", "size", "samples", "index_size", "index_hash", "head")
            },
            "regions": [regions.lookup(*place) for place in record["places"]],
        }
        for record in records
    ]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "samples": sum(record["samples"] for record in records),
        "seed": options.seed,
        "shards": shards,
        "regions": regions.to_json(),
        "classes": class_table(),
        "fingerprint": content_hash("".join(record["index_hash"] for record in records).encode()),
        "attribution": [
            {"licence": licence, "attribution": text, "samples": count}
            for (licence, text), count in sorted(credits.items())
        ],
    }
    manifest["hash"] = manifest_hash(manifest)
    text = json.dumps(manifest, indent=1, sort_keys=True)
    write_whole(out / MANIFEST, text, durable=True)
    return manifest


def _once(tiles: Iterable[Tile]) -> Iterator[Tile]:
    """Pass tiles on, each key once."""
    keys = set()
    for tile in tiles:
        if tile.key in keys:
            raise InputError(
                f"tile {tile.key!r}: keys must be unique in a dataset, this one came before"
            )
        keys.add(tile.key)
        yield tile


def _add(tar: tarfile.TarFile, file, tile: Tile, options: ShardOptions) -> dict:
    """Append one tile; returns its index entry. ``block`` is the stretch of the tar that holds the
    sample."""
    entry, start = _describe(tile), file.tell()
    for field, (suffix, data, extra) in _members(tile, options).items():
        info = tarfile.TarInfo(
            f"{tile.key}.{suffix}"
        )  # mtime, uid and gid stay 0: equal bytes every time
        info.size = len(data)
        entry["members"][field] = {
            "name": info.name,
            "size": info.size,
            "crc32c": checksum(data),
            "offset": file.tell() + tarfile.BLOCKSIZE,
            **extra,
        }
        tar.addfile(info, io.BytesIO(data))
    entry["block"] = [start, file.tell() - start]
    return entry


def _describe(tile: Tile) -> dict:
    """What the index says of a sample, members still missing."""
    return {
        "key": tile.key,
        "cells": tile.cells,
        "lon": tile.lon,
        "lat": tile.lat,
        "modalities": tile.modalities,
        "dates": {name: tile.dates[name] for name in tile.modalities},
        "members": {},
        # frames with at least one valid pixel: the others are never drawn
        "usable": {
            name: np.flatnonzero(tile.valid[name].any((1, 2))).tolist() for name in tile.modalities
        },
    }


def _members(tile: Tile, options: ShardOptions) -> dict[str, tuple[str, bytes, dict]]:
    """field -> (member suffix, bytes, what the index needs besides offset, size and checksum), in
    the tar's order."""
    found = {}
    for name in tile.modalities:
        array, valid = tile.arrays[name], tile.valid[name]
        found[f"{name}_valid"] = (f"{name}_valid.{MASKS}", *encode_masks(valid))
        if name == "hr":
            for level, image in enumerate(_pyramid(array)):
                quality = min(options.quality, REDUCED_QUALITY) if level else options.quality
                data = _image(
                    image.transpose(1, 2, 0), options.hr_codec, quality, whole_colour=level > 0
                )
                found[hr_field(level)] = (
                    f"{hr_field(level)}.{HR_SUFFIXES[options.hr_codec]}",
                    data,
                    {},
                )
        else:
            try:
                found[name] = (f"{name}.{SERIES}", *encode_series(array, valid, name))
            except InputError as error:
                raise InputError(f"tile {tile.key!r}: {error}") from error
    if "labels" in tile.arrays:
        found["labels"] = ("labels.png", _image(tile.arrays["labels"], "png"), {})
    meta = {
        name: getattr(tile, name)
        for name in ("crs", "transform", "source", "licence", "attribution")
    }
    meta |= {name: value for name, value in _describe(tile).items() if name != "members"}
    meta["stacks"] = {field: extra for field, (_, _, extra) in found.items() if extra}
    return {"meta": ("meta.json", json.dumps(meta, sort_keys=True).encode(), {}), **found}


def _pyramid(image: np.ndarray) -> list[np.ndarray]:
    """3 H W uint8 and its reductions by 2, 4, ... down to LEAST_SIDE.

    Views that shrink the image are cut from the coarsest one that is still as fine as they are.
    Means of 2 x 2 pixels in whole numbers: the same on every machine, and nothing crosses the
    border of a cell."""
    levels = [image]
    while levels[-1].shape[-1] >= 2 * LEAST_SIDE and HR_PIXELS >> len(levels):
        x = levels[-1].astype(np.uint16)
        levels.append(
            (
                (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2] + 2) >> 2
            ).astype(np.uint8)
        )
    return levels


def _image(array: np.ndarray, codec: str, quality: int = 0, whole_colour: bool = False) -> bytes:
    """Encode H W 3 or H W uint8. Cells are whole blocks of JPEG, so an invalid cell does not ring
    into others."""
    buffer = io.BytesIO()
    options = (
        {"quality": quality, "subsampling": 0 if whole_colour else 2} if codec == "jpeg" else {}
    )
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, codec, **options)
    return buffer.getvalue()


def _index(name: str, entries: list[dict]) -> tuple[bytes, list[int]]:
    """The sidecar's bytes, and [size, crc32c] of its first line, which says where the others lie
    (from its own end)."""
    lines = [
        json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        for entry in entries
    ]
    offsets = accumulate(map(len, lines), initial=0)
    rows = [[offset, len(line), checksum(line)] for offset, line in zip(offsets, lines)]
    head = (
        json.dumps({"shard": tar_name(name), "rows": rows}, separators=(",", ":")).encode() + b"\n"
    )
    return head + b"".join(lines), [len(head), checksum(head)]
