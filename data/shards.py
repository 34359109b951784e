"""The training format: plain tars, a sidecar index beside each, and a manifest that is written last.

``shard-000000.tar`` holds members ``<key>.<field>`` that stock ``webdataset`` reads: ``meta.json``, ``hr.jpg`` or
``hr.png``, ``labels.png``, and the stacks ``ms.zst``, ``ms_valid.zst``, ... A stack is one zstd frame an acquisition,
one behind the other (``zstd -d`` gives the whole array), so that only the drawn acquisitions are read and decoded.
``shard-000000.index.json`` says where each member and acquisition lies and its CRC32C. Without its manifest a folder
is no dataset. Equal tiles and seed give equal bytes.
"""

import hashlib
import io
import json
import os
import tarfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from PIL import Image

from data.archive import check_tile
from data.classes import class_table
from data.errors import InputError
from data.order import generator
from data.regions import RegionTable
from data.tile import Tile

FORMAT = "skysense-shards"
VERSION = 1
MANIFEST = "manifest.json"
SUFFIXES = {"jpeg": "jpg", "png": "png"}  # high-resolution codec -> name of the member
KEY_LENGTH = 80  # a tar header has 100 bytes for key and field
ZSTD_LEVEL = 9  # written once, read every epoch
OPEN_FILES = 64  # shards that one process keeps open
OPEN_INDEXES = 64  # sidecar indexes that one process keeps in memory


# ---- writing

def write_shards(tiles: Iterable[Tile], out: str | Path, samples_per_shard: int = 256, seed: int = 0,
                 hr_codec: str = "jpeg", quality: int = 95, overwrite: bool = False) -> dict:
    """Pack tiles, shuffled by ``seed``, into ``out`` and return the manifest.

    A Sequence may load its tiles lazily and is asked for one at a time; any other iterable is held in memory.
    Raises InputError for malformed tiles, repeated keys, or a folder that must not be written."""
    if hr_codec not in SUFFIXES or not 1 <= quality <= 100 or samples_per_shard < 1:
        raise InputError(f"shards: expected hr_codec in {sorted(SUFFIXES)}, quality in 1..100 and samples_per_shard "
                         f">= 1, found {hr_codec!r}, {quality}, {samples_per_shard}")
    out, tiles = Path(out), tiles if isinstance(tiles, Sequence) else list(tiles)
    if not tiles:
        raise InputError(f"{out}: no tiles to pack; prepare an archive first")
    _claim(out, overwrite)
    sequence = (tiles[int(i)] for i in generator(seed, "shards").permutation(len(tiles)))
    shards, places, credits = [], [], Counter()
    checked = _checked(sequence, credits)
    for number in range(-(-len(tiles) // samples_per_shard)):
        record, entries = _write_shard(out, number, islice(checked, samples_per_shard), hr_codec, quality)
        shards.append(record)
        places += [(entry["lon"], entry["lat"]) for entry in entries]
    regions = RegionTable.from_points(places)
    place = iter(places)
    for record in shards:
        record["regions"] = [regions.lookup(*next(place)) for _ in range(record["samples"])]
    manifest = {
        "format": FORMAT, "version": VERSION, "samples": len(places), "seed": seed, "shards": shards,
        "fingerprint": _hash("".join(record["index_hash"] for record in shards).encode()),
        "regions": regions.to_json(), "classes": class_table(),
        "attribution": [{"licence": licence, "attribution": text, "samples": count}
                        for (licence, text), count in sorted(credits.items())],
    }
    partial = out / (MANIFEST + ".partial")
    _write(partial, json.dumps(manifest, indent=1, sort_keys=True).encode())
    os.replace(partial, out / MANIFEST)
    return manifest


def _claim(out: Path, overwrite: bool) -> None:
    """Make ``out`` a folder without shards. Only files that carry our names are ever removed."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder for the shards, found a file; choose another place")
    out.mkdir(parents=True, exist_ok=True)
    ours = [out / MANIFEST, *out.glob("shard-??????.tar"), *out.glob("shard-??????.index.json")]  # manifest goes first
    ours = [path for path in ours if path.exists()]
    if ours and not overwrite:
        raise InputError(f"{out}: holds shards already (found {ours[0].name}); pass --overwrite to replace them")
    for path in ours:
        path.unlink()


def _checked(tiles: Iterable[Tile], credits: Counter) -> Iterator[Tile]:
    """Pass tiles on, each checked and each key once; counts the tiles by (licence, attribution)."""
    keys = set()
    for tile in tiles:
        check_tile(tile)
        if tile.key in keys or len(tile.key) > KEY_LENGTH:
            raise InputError(f"tile {tile.key!r}: keys must be unique in a dataset and at most {KEY_LENGTH} characters")
        keys.add(tile.key)
        credits[tile.licence, tile.attribution] += 1
        yield tile


def _write_shard(out: Path, number: int, tiles: Iterable[Tile], codec: str, quality: int) -> tuple[dict, list[dict]]:
    """Write one tar and its index; returns the manifest's record of the shard and the index entries."""
    name, entries = f"shard-{number:06d}", []
    with open(out / f"{name}.tar", "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for tile in tiles:
                entries.append(_describe(tile))
                for field, (suffix, data, extra) in _members(tile, codec, quality).items():
                    info = tarfile.TarInfo(f"{tile.key}.{suffix}")  # mtime, uid and gid stay 0: equal bytes every time
                    info.size = len(data)
                    entries[-1]["members"][field] = {"name": info.name, "size": info.size, "crc32c": _crc(data),
                                                     "offset": file.tell() + tarfile.BLOCKSIZE, **extra}
                    tar.addfile(info, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    lines = ",\n".join(json.dumps(entry, sort_keys=True) for entry in entries)
    index = f'{{"shard": "{name}.tar", "samples": [\n{lines}\n]}}\n'.encode()
    _write(out / f"{name}.index.json", index)
    return {"name": name, "size": size, "samples": len(entries), "index_size": len(index),
            "index_hash": _hash(index)}, entries


def _describe(tile: Tile) -> dict:
    """What the index says of a sample, members still missing."""
    return {"key": tile.key, "cells": tile.cells, "lon": tile.lon, "lat": tile.lat, "modalities": tile.modalities,
            "dates": {name: tile.dates[name] for name in tile.modalities}, "members": {},
            # frames with at least one valid pixel: the others are never drawn
            "usable": {name: np.flatnonzero(tile.valid[name].any((1, 2))).tolist() for name in tile.modalities}}


def _members(tile: Tile, codec: str, quality: int) -> dict[str, tuple[str, bytes, dict]]:
    """field -> (member suffix, bytes, what the index needs besides offset, size and checksum)."""
    found = {}
    for name in tile.modalities:
        array, valid = tile.arrays[name], tile.valid[name]
        if name == "hr":
            found["hr"] = (f"hr.{SUFFIXES[codec]}", _image(array.transpose(1, 2, 0), codec, quality), {})
        else:
            if not np.isfinite(array).all(1)[valid].all():
                raise InputError(f"tile {tile.key!r}: {name} holds NaN or infinite values in pixels marked valid; "
                                 f"correct the mask and prepare the tile again")
            found[name] = (f"{name}.zst", *_stack(array))
        found[f"{name}_valid"] = (f"{name}_valid.zst", *_stack(valid))
    if "labels" in tile.arrays:
        found["labels"] = ("labels.png", _image(tile.arrays["labels"], "png", 0), {})
    meta = {name: getattr(tile, name) for name in ("crs", "transform", "source", "licence", "attribution")}
    meta |= {name: value for name, value in _describe(tile).items() if name != "members"}
    meta["stacks"] = {field: extra for field, (_, _, extra) in found.items() if extra}
    return {"meta": ("meta.json", json.dumps(meta, sort_keys=True).encode(), {}), **found}


def _stack(array: np.ndarray) -> tuple[bytes, dict]:
    """Compress frame by frame: T ... -> bytes and {"dtype", "shape" of a frame, "frames": [[offset, size, crc32c]]}."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    codec, chunks = Zstd(level=ZSTD_LEVEL), []
    for frame in array:
        chunks.append(codec.encode(frame))
    offsets = accumulate(map(len, chunks), initial=0)
    frames = [[offset, len(chunk), _crc(chunk)] for offset, chunk in zip(offsets, chunks)]
    return b"".join(chunks), {"dtype": array.dtype.str, "shape": list(array.shape[1:]), "frames": frames}


def _image(array: np.ndarray, codec: str, quality: int) -> bytes:
    """Encode H W 3 or H W uint8. Cells are multiples of JPEG's blocks, so an invalid cell does not ring into others."""
    buffer = io.BytesIO()
    options = {"quality": quality} if codec == "jpeg" else {}
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, codec, **options)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Write a file that is on the disk when this returns."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _crc(data: bytes) -> int:
    """CRC32C (Castagnoli)."""
    return google_crc32c.value(data)


def _hash(data: bytes) -> str:
    """BLAKE2b, 128 bits, in hex."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# ---- reading

class ShardDataset:
    """A folder of shards, opened with ``ShardDataset.open``. Samples are numbered through all shards.

    Only the manifest stays in memory; indexes and files are opened when asked for, in each process."""

    def __init__(self, path: Path, manifest: dict):
        self.path, self.manifest = path, manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.classes: list[dict] = manifest["classes"]  # {"index", "name", "text"}
        self.attribution: list[dict] = manifest["attribution"]
        self.regions = RegionTable.from_json(manifest["regions"])
        self._starts = list(accumulate((shard["samples"] for shard in manifest["shards"]), initial=0))
        self._index = lru_cache(maxsize=OPEN_INDEXES)(self._load_index)
        self._file = lru_cache(maxsize=OPEN_FILES)(lambda tar: open(tar, "rb", buffering=0))

    def __reduce__(self):  # open files and caches stay behind when a worker process is spawned
        return ShardDataset, (self.path, self.manifest)

    @classmethod
    def open(cls, path: str | Path) -> "ShardDataset":
        """Check manifest, presence and exact size of every file. Raises InputError with the first thing wrong."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise InputError(f"{path}: expected a sharded dataset, found no {MANIFEST}; "
                             f"run launch/build_shards.py (an interrupted build leaves none)")
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
        except ValueError as error:
            raise InputError(f"{path / MANIFEST}: not valid JSON ({error}); build the shards again") from error
        if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
            raise InputError(f"{path / MANIFEST}: expected format {FORMAT!r} version {VERSION}, found another; "
                             f"build the shards again")
        hashes = [shard.get("index_hash", "") for shard in manifest.get("shards", [])]
        if manifest.get("fingerprint") != _hash("".join(hashes).encode()):
            raise InputError(f"{path / MANIFEST}: its fingerprint does not fit its shards; it was changed by hand, "
                             f"build the shards again")
        for shard in manifest["shards"]:
            for name, size in ((f"{shard['name']}.tar", shard["size"]),
                               (f"{shard['name']}.index.json", shard["index_size"])):
                found = (path / name).stat().st_size if (path / name).is_file() else None
                if found != size:
                    raise InputError(f"{path / name}: expected {size} bytes, found "
                                     f"{'no such file' if found is None else f'{found} bytes'}; "
                                     f"copy the shard again or build the shards again")
        return cls(path, manifest)

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> list[str]:
        """Keys of all samples, in order; reads every index."""
        return [entry["key"] for shard in range(len(self.manifest["shards"])) for entry in self._index(shard)]

    def entry(self, sample: int) -> dict:
        """The index entry: key, cells, lon, lat, modalities, dates, usable (frames with valid pixels), members."""
        shard, row = self._locate(sample)
        return self._index(shard)[row]

    def region(self, sample: int) -> int:
        """Index in the region table."""
        shard, row = self._locate(sample)
        return self.manifest["shards"][shard]["regions"][row]

    def read_member(self, sample: int, field: str) -> bytes:
        """Bytes of one member ("meta", "hr", "ms", "ms_valid", "labels", ...), checked against its CRC32C.

        Raises InputError naming key, field and shard when it is absent, cut short or damaged."""
        member = self._member(sample, field)
        return self._read(sample, field, member["offset"], member["size"], member["crc32c"])

    def read_frames(self, sample: int, field: str, frames: Iterable[int]) -> list[bytes]:
        """Compressed bytes of some frames of a stack, each checked; the others are not touched. Raises InputError."""
        member = self._member(sample, field)
        return [self._read(sample, field, member["offset"] + offset, size, crc)
                for offset, size, crc in (member["frames"][int(i)] for i in frames)]

    def _member(self, sample: int, field: str) -> dict:
        """What the index says of one member."""
        entry = self.entry(sample)
        if field not in entry["members"]:
            raise InputError(f"{self._tar(sample)}: sample {entry['key']!r} has no field {field!r}, "
                             f"only {sorted(entry['members'])}")
        return entry["members"][field]

    def _read(self, sample: int, field: str, offset: int, size: int, crc: int) -> bytes:
        """A byte range of the sample's tar, checked."""
        tar = self._tar(sample)
        where = f"{tar}: sample {self.entry(sample)['key']!r}, field {field!r}"
        try:
            data = os.pread(self._file(tar).fileno(), size, offset)
        except OSError as error:
            raise InputError(f"{where}: cannot be read ({error})") from error
        if len(data) != size:
            raise InputError(f"{where}: expected {size} bytes at {offset}, found {len(data)}; the shard is cut short")
        if _crc(data) != crc:
            raise InputError(f"{where}: CRC32C is {_crc(data):08x}, the index says {crc:08x}; the shard is damaged, "
                             f"copy it again or build the shards again")
        return data

    def _tar(self, sample: int) -> Path:
        """The file that holds a sample."""
        return self.path / f"{self.manifest['shards'][self._locate(sample)[0]]['name']}.tar"

    def _locate(self, sample: int) -> tuple[int, int]:
        """Shard number and row of a sample."""
        if not 0 <= sample < len(self):
            raise InputError(f"{self.path}: sample {sample} is outside the {len(self)} samples")
        shard = bisect_right(self._starts, sample) - 1
        return shard, sample - self._starts[shard]

    def _load_index(self, shard: int) -> list[dict]:
        """Entries of one sidecar, checked against the manifest's hash."""
        record = self.manifest["shards"][shard]
        path = self.path / f"{record['name']}.index.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error})") from error
        if _hash(data) != record["index_hash"]:
            raise InputError(f"{path}: its content is not what the manifest says; the shards were changed or damaged, "
                             f"build them again")
        return json.loads(data)["samples"]
