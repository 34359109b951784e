"""The writing side of the training format: plain tars, an index beside each, a manifest at the end.

``shard-000000.tar`` holds members ``<key>.<field>`` that stock ``webdataset`` reads
(``data/shards/encode.py``). ``shard-000000.index.jsonl`` says where each member and acquisition
lies and its CRC32C, so that only the drawn acquisitions are read and decoded. Its first line says
where the lines of the samples lie, so that one is read without the others. All tiles of a shard are
of one split. Equal tiles and options give equal bytes. Without its manifest a folder is no dataset.
"""

import io
import json
import secrets
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

from data.errors import InputError
from data.files import PARTIAL, force, whole_file, write_durable, write_whole
from data.hashing import checksum, content_hash
from data.seeded import generator
from data.shards.encode import DEFAULT_OPTIONS, Encoded, ShardOptions, describe, encode_tile
from data.shards.files import MANIFEST, index_name, tar_name
from data.shards.records import (
    FORMAT,
    VERSION,
    ClassRow,
    Credit,
    IndexEntry,
    IndexHead,
    Manifest,
    Member,
    ShardFiles,
    ShardRecord,
    manifest_hash,
)
from data.tiles.check import check_tile
from data.tiles.classes import class_table
from data.tiles.definitions import Definition, sensors_of
from data.tiles.modalities import MODALITIES
from data.tiles.regions import NO_REGION, RegionTable
from data.tiles.splits import TRAIN
from data.tiles.tile import Tile

KEY_LENGTH = 80  # a tar header has 100 bytes for key and field


class WrittenShard(ShardFiles):
    """A shard that is written, with what the manifest will say of its samples.

    Attributes:
        places: lon and lat of each sample; None: nobody knows its place.
        credits: licence, attribution, number of samples.
    """

    places: list[tuple[float, float] | None]
    credits: list[tuple[str, str, int]]


def write_shards(
    tiles: Iterable[Tile],
    out: str | Path,
    options: ShardOptions = DEFAULT_OPTIONS,
    *,
    sensors: Sequence[Definition] = (),
    overwrite: bool = False,
) -> Manifest:
    """Pack tiles, shuffled by the options' seed.

    Args:
        tiles: a Sequence may load its tiles lazily and is asked for one at a time; any other
            iterable is held in memory.
        out: folder of the dataset.
        options: how they are packed.
        sensors: descriptions of the sensors that the tiles have beside the built-in ones.
        overwrite: replace a dataset that is there.

    Raises:
        InputError: a tile is malformed, a key comes twice, the tiles are of several splits (which
            ``pack`` keeps apart), or the folder must not be written.
    """
    options.check()
    out = Path(out)
    if not isinstance(tiles, Sequence):
        tiles = list(tiles)
    if not tiles:
        raise InputError(f"{out}: no tiles to pack; prepare an archive first")
    claim(out, overwrite=overwrite)
    MODALITIES.add(sensors_of(sensors), str(out))
    shuffled = _unique(tiles[i] for i in packing_order(len(tiles), options.seed))
    shards = []
    for number in range(-(-len(tiles) // options.samples_per_shard)):
        part = islice(shuffled, options.samples_per_shard)
        shards.append(write_shard(out, number, part, options))
    return write_manifest(out, shards, options, sensors)


def packing_order(count: int, seed: int) -> list[int]:
    """Position in the shards -> number of the tile."""
    return generator(seed, "shards").permutation(count).tolist()


def claim(out: Path, *, overwrite: bool) -> None:
    """Make ``out`` a folder without shards.

    Only files with the names of a dataset are ever removed; half-written ones always.

    Raises:
        InputError: there are shards and ``overwrite`` is false, or a file lies at ``out``.
    """
    if out.exists() and not out.is_dir():
        raise InputError(
            f"{out}: expected a folder for the shards, found a file; choose another place"
        )
    out.mkdir(parents=True, exist_ok=True)
    shards = [*out.glob("shard-??????.tar"), *out.glob("shard-??????.index.jsonl")]
    dataset = [path for path in (out / MANIFEST, *shards) if path.exists()]  # manifest goes first
    if dataset and not overwrite:
        raise InputError(
            f"{out}: holds shards already (found {dataset[0].name}); pass --overwrite to replace "
            f"them"
        )
    for path in dataset:
        path.unlink()
    discard_partial(out)


def discard_partial(out: Path) -> None:
    """Remove the files that killed workers have left half-written. No other one may be at work."""
    for path in [*out.glob(MANIFEST + PARTIAL), *out.glob(f"shard-??????.*{PARTIAL}")]:
        path.unlink()


def write_shard(
    out: Path, number: int, tiles: Iterable[Tile], options: ShardOptions
) -> WrittenShard:
    """Write one tar and its index, each published by a rename, the index last.

    Until then each has a name that no other worker uses: two of them may write the same shard when
    one has lost its network.

    Raises:
        InputError: a tile is malformed, or they are of several splits.
    """
    name = f"shard-{number:06d}"
    entries: list[IndexEntry] = []
    splits: set[str] = set()
    credits: Counter[tuple[str, str]] = Counter()
    tar_path = out / tar_name(name)
    with whole_file(tar_path, scratch=_scratch(tar_path)) as scratch, open(scratch, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for tile in tiles:
                _check_for_shard(tile)
                entries.append(_append(tar, file, tile, options))
                credits[tile.licence, tile.attribution] += 1
                splits.add(tile.split)
        force(file)
        size = file.tell()
    index, head = _index(name, entries)
    index_path = out / index_name(name)
    with whole_file(index_path, scratch=_scratch(index_path)) as scratch:
        write_durable(scratch, index)
    return WrittenShard(
        name=name,
        size=size,
        samples=len(entries),
        index_size=len(index),
        index_hash=content_hash(index),
        head=head,
        split=_common_split(splits, name),
        places=[entry.place for entry in entries],
        credits=[(*credit, count) for credit, count in sorted(credits.items())],
    )


def _common_split(splits: set[str], name: str) -> str | None:
    """The split of all tiles of a shard, which are for one thing; None when none says it."""
    if splits == {""}:
        return None
    said = {split or TRAIN for split in splits}
    if len(said) > 1:
        raise InputError(f"{name}: expected tiles of one split, found {sorted(said)}")
    return said.pop()


def _scratch(path: Path) -> Path:
    """Another name each time for a file that is being written."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def write_manifest(
    out: Path,
    shards: Sequence[WrittenShard],
    options: ShardOptions,
    sensors: Sequence[Definition] = (),
) -> Manifest:
    """Make a dataset of written shards: give each sample its region, add up credits."""
    places = []
    hashes = ""
    credits: Counter[tuple[str, str]] = Counter()
    for shard in shards:
        places += shard.places
        hashes += shard.index_hash
        for licence, attribution, count in shard.credits:
            credits[licence, attribution] += count
    regions = RegionTable.from_points(place for place in places if place is not None)
    unsigned = Manifest(
        format=FORMAT,
        version=VERSION,
        samples=len(places),
        seed=options.seed,
        shards=[_with_regions(shard, regions) for shard in shards],
        regions=regions.to_json(),
        classes=[ClassRow(**row) for row in class_table()],
        fingerprint=content_hash(hashes.encode()),
        attribution=_credits(credits),
        sensors=list(sensors),
        hash="",
    )
    manifest = unsigned.model_copy(update={"hash": manifest_hash(unsigned.to_json())})
    text = json.dumps(manifest.to_json(), indent=1, sort_keys=True)
    write_whole(out / MANIFEST, text, durable=True)
    return manifest


def _with_regions(shard: WrittenShard, regions: RegionTable) -> ShardRecord:
    """A shard as the manifest has it."""
    indices = []
    for place in shard.places:
        if place is None:
            indices.append(NO_REGION)
            continue
        region = regions.lookup(*place)
        assert region is not None, "the table is made of these places"
        indices.append(region)
    files = shard.model_dump(include=set(ShardFiles.model_fields))
    return ShardRecord(**files, regions=indices)


def _credits(samples: Counter[tuple[str, str]]) -> list[Credit]:
    """Credits from (licence, attribution) -> samples, sorted."""
    credits = []
    for (licence, attribution), count in sorted(samples.items()):
        credits.append(Credit(licence=licence, attribution=attribution, samples=count))
    return credits


def _unique(tiles: Iterable[Tile]) -> Iterator[Tile]:
    """Pass tiles on, and refuse a key that comes twice."""
    keys = set()
    for tile in tiles:
        if tile.key in keys:
            raise InputError(
                f"tile {tile.key!r}: keys must be unique in a dataset, this one came before"
            )
        keys.add(tile.key)
        yield tile


def _check_for_shard(tile: Tile) -> None:
    """Refuse a tile that is malformed or whose key is too long for a tar header."""
    check_tile(tile)
    if len(tile.key) > KEY_LENGTH:
        raise InputError(f"tile {tile.key!r}: a key in a shard has at most {KEY_LENGTH} characters")


def _append(tar: tarfile.TarFile, file: IO[bytes], tile: Tile, options: ShardOptions) -> IndexEntry:
    """Append one tile to a tar; returns its index entry."""
    start = file.tell()
    members = {}
    for field, encoded in encode_tile(tile, options).items():
        info = tarfile.TarInfo(f"{tile.key}.{encoded.suffix}")
        info.size = len(encoded.data)  # mtime, uid and gid stay 0: equal bytes every time
        members[field] = _member(info, encoded, file.tell() + tarfile.BLOCKSIZE)
        tar.addfile(info, io.BytesIO(encoded.data))
    return IndexEntry(**describe(tile), members=members, block=(start, file.tell() - start))


def _member(info: tarfile.TarInfo, encoded: Encoded, offset: int) -> Member:
    """The record of a member whose bytes begin at ``offset`` of the tar."""
    layout = {}
    if encoded.layout is not None:
        layout = encoded.layout.model_dump()
    return Member(
        name=info.name,
        size=info.size,
        crc32c=checksum(encoded.data),
        offset=offset,
        **layout,
    )


def _index(name: str, entries: Iterable[IndexEntry]) -> tuple[bytes, tuple[int, int]]:
    """The bytes of an index; size and CRC32C of its first line."""
    lines = []
    rows = []
    offset = 0
    for entry in entries:
        line = entry.line()
        lines.append(line)
        rows.append((offset, len(line), checksum(line)))
        offset += len(line)
    head = IndexHead(shard=tar_name(name), rows=rows).line()
    return head + b"".join(lines), (len(head), checksum(head))
