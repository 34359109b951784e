"""What the files of a sharded dataset say, as typed records.

The index has a line for each sample, ``IndexEntry``. The manifest has a ``ShardRecord`` for each
shard. Unknown and missing names, and values of a wrong type, are refused.
"""

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from data.errors import InputError
from data.hashing import content_hash
from data.tiles.definitions import Definition
from data.tiles.regions import RegionTable
from data.tiles.splits import ALL, TRAIN

FORMAT = "skysense-shards"
VERSION = 2


class Record(BaseModel):
    """A line or an object of JSON with fixed names and types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read a record.

        Args:
            data: JSON.
            where: the file, for messages.

        Raises:
            InputError: no JSON, or other names or types than the record has.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "content"
            raise InputError(
                f"{where}: {place}: {first['msg']}; another program version wrote it, or it is "
                f"damaged: build the shards again"
            ) from error


class MaskLayout(Record):
    """How a stack of masks is laid out.

    Attributes:
        dtype: of a pixel, as numpy writes it.
        shape: of the whole stack, T N N.
    """

    dtype: str
    shape: tuple[int, ...]


class SeriesLayout(Record):
    """How a series is laid out.

    Attributes:
        dtype: of a number, as numpy writes it.
        shape: of one frame, C pN pN with p pixels a cell.
        step: numbers are multiples of it; None: the numbers as they are.
        frames: offset in the member, size in bytes and CRC32C of each frame.
    """

    dtype: str
    shape: tuple[int, ...]
    step: float | None
    frames: list[tuple[int, int, int]]


class Member(Record):
    """A file in a tar.

    One type for all members reads an index twice as fast as one type for each kind.

    Attributes:
        name: ``<key>.<field>`` and a suffix.
        size: bytes.
        crc32c: of its bytes.
        offset: of its first byte in the tar.
        dtype: of a stack, see ``MaskLayout`` and ``SeriesLayout``.
        shape: of a stack.
        step: of a series.
        frames: of a series.
    """

    name: str
    size: int
    crc32c: int
    offset: int
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    step: float | None = None
    frames: list[tuple[int, int, int]] | None = None


class IndexEntry(Record):
    """What the index says of a sample.

    Attributes:
        key: name of the tile.
        cells: N, its side in 10 m cells.
        lon: of its centre, degrees; None: nobody knows its place.
        lat: of its centre, degrees; None as well.
        modalities: the sensors that it has, in the order of the registry.
        dates: sensor -> ISO day of each frame, ascending.
        usable: sensor -> frames with at least one valid pixel; the others are never drawn.
        members: field -> where it lies.
        block: offset and size of the stretch of the tar that holds the sample.
        split: what the tile is for; None where the archive does not say it.
    """

    key: str
    cells: int
    lon: float | None
    lat: float | None
    modalities: list[str]
    dates: dict[str, list[str]]
    usable: dict[str, list[int]]
    members: dict[str, Member]
    block: tuple[int, int]
    split: str | None = None

    @property
    def place(self) -> tuple[float, float] | None:
        """Longitude and latitude of its centre in degrees; None: nobody knows them."""
        if self.lon is None or self.lat is None:
            return None
        return self.lon, self.lat

    def line(self) -> bytes:
        """The entry as it stands in the index: one line of compact JSON, names sorted."""
        content = self.model_dump(exclude_unset=True)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return text.encode() + b"\n"

    def series(self, field: str) -> SeriesLayout:
        """How a series is laid out.

        Raises:
            InputError: there is no such series.
        """
        member = self.members.get(field)
        if member is None or member.frames is None or member.dtype is None or member.shape is None:
            raise InputError(f"sample {self.key!r} has no series {field!r}")
        return SeriesLayout(
            dtype=member.dtype, shape=member.shape, step=member.step, frames=member.frames
        )

    def masks(self, field: str) -> MaskLayout:
        """How a stack of masks is laid out.

        Raises:
            InputError: there is no such stack.
        """
        member = self.members.get(field)
        if member is None or member.frames or member.dtype is None or member.shape is None:
            raise InputError(f"sample {self.key!r} has no masks {field!r}")
        return MaskLayout(dtype=member.dtype, shape=member.shape)


class IndexHead(Record):
    """The first line of an index.

    Attributes:
        shard: name of the tar.
        rows: offset from the end of this line, size and CRC32C of each sample's line.
    """

    shard: str
    rows: list[tuple[int, int, int]]

    def line(self) -> bytes:
        """The head as it stands in the index: one line of compact JSON."""
        return json.dumps(self.model_dump(), separators=(",", ":")).encode() + b"\n"


class ShardFiles(Record):
    """The two files of a shard.

    Attributes:
        name: without a suffix.
        size: of the tar, bytes.
        samples: how many.
        index_size: bytes.
        index_hash: of the index.
        head: size and CRC32C of the index's first line.
        split: of all its samples; None where the archive does not say it.
    """

    name: str
    size: int
    samples: int
    index_size: int
    index_hash: str
    head: tuple[int, int]
    split: str | None = None


class ShardRecord(ShardFiles):
    """A shard in the manifest, with the region of each sample, ``NO_REGION`` without a place."""

    regions: list[int]


class Credit(Record):
    """A licence, whom to name, and how many samples that is for."""

    attribution: str
    licence: str
    samples: int


class ClassRow(Record):
    """A class of the labels: its index, its name and its text prompt."""

    index: int
    name: str
    text: str


class Manifest(Record):
    """What the manifest of a dataset says.

    Attributes:
        format: ``FORMAT``.
        version: ``VERSION``.
        samples: in all shards.
        seed: of the order in which the tiles were packed.
        shards: in the order of their numbers.
        regions: table of regions as plain data, see ``RegionTable``.
        classes: in the order of their indices.
        fingerprint: hash of the indexes, and through them of every member.
        attribution: licences, sorted.
        sensors: descriptions of the sensors that are not built in, and of built-in ones with
            statistics of their own.
        hash: of all the rest, see ``manifest_hash``.
    """

    format: str
    version: int
    samples: int
    seed: int
    shards: list[ShardRecord]
    regions: dict[str, Any]
    classes: list[ClassRow]
    fingerprint: str
    attribution: list[Credit]
    sensors: list[Definition] = []
    hash: str

    def to_json(self) -> dict[str, Any]:
        """The manifest as it stands in its file. Without sensors or splits these are left out."""
        content = self.model_dump()
        for shard in content["shards"]:
            if shard["split"] is None:
                del shard["split"]
        content["sensors"] = [sensor.to_json() for sensor in self.sensors]
        if not self.sensors:
            del content["sensors"]
        return content

    @property
    def size(self) -> int:
        """Bytes of all tars."""
        return sum(shard.size for shard in self.shards)

    def in_split(self, split: str) -> list[ShardRecord]:
        """The shards of a split, or all for ``ALL``. One that says nothing is for training.

        Raises:
            InputError: there are none.
        """
        shards = [shard for shard in self.shards if split in (shard.split or TRAIN, ALL)]
        if not shards:
            counts = ", ".join(f"{name} {count}" for name, count in self.splits.items())
            raise InputError(f"no samples of the split {split!r}; there are: {counts}")
        return shards

    @property
    def splits(self) -> dict[str, int]:
        """Split -> samples that are for it."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            name = shard.split or TRAIN
            counts[name] = counts.get(name, 0) + shard.samples
        return counts

    def region_table(self) -> RegionTable:
        """The table of regions.

        Raises:
            InputError: it is of another grid.
        """
        return RegionTable.from_json(self.regions)


def manifest_hash(manifest: dict) -> str:
    """Hash of everything in a manifest (plain data) but its own ``hash``."""
    rest = dict(manifest)
    rest.pop("hash", None)
    return content_hash(json.dumps(rest, sort_keys=True).encode())
