"""The reading side of the training format: any sample, any member, any frame, checked.

The format is described in ``data/shards/writer.py``.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from data.errors import InputError
from data.hashing import content_hash
from data.shards.files import MANIFEST, index_name, tar_name
from data.shards.records import (
    FORMAT,
    VERSION,
    ClassRow,
    Credit,
    IndexEntry,
    IndexHead,
    Manifest,
    manifest_hash,
)
from data.storage.faults import ReadError
from data.storage.ranges import Range
from data.storage.settings import DEFAULTS, StoreSettings
from data.storage.store import Store
from data.tiles.definitions import sensors_of
from data.tiles.known import Authority
from data.tiles.modalities import MODALITIES, Modality
from data.tiles.splits import ALL

OPEN_HEADS = 4096  # index heads that one process keeps: some 20 bytes a sample
OPEN_ENTRIES = 256  # samples: an entry is asked for several times while its sample is read

Want = tuple[str, int | None]  # field of a sample; frame of a stack, or None for the whole member


class ShardDataset:
    """A folder of shards, local or behind a URL, opened with ``ShardDataset.open``.

    Samples are numbered through all shards of the chosen split. Only the manifest stays in memory.
    Indexes and files are opened when asked for, in each process.

    Attributes:
        store: reads the files.
        manifest: what the dataset says of itself.
        path: the folder or URL.
        split: what its samples are for; ``ALL`` for every one.
        shards: of this split.
        fingerprint: of the content, and of the split where it leaves shards out.
        classes: table of the labels' classes.
        attribution: licences, and how many samples of all splits each is for.
        regions: table of the regions that hold samples.
    """

    def __init__(self, store: Store, manifest: Manifest, split: str = ALL):
        self.store = store
        self.manifest = manifest
        self.path: str = store.root
        self.split = split
        self.shards = manifest.in_split(split)
        self.fingerprint: str = manifest.fingerprint
        if len(self.shards) < len(manifest.shards):
            self.fingerprint = content_hash(f"{manifest.fingerprint} {split}".encode())
        self.classes: list[ClassRow] = manifest.classes
        self.attribution: list[Credit] = manifest.attribution
        self.regions = manifest.region_table()
        self.know_sensors()
        counts = [shard.samples for shard in self.shards]
        self._starts = list(accumulate(counts, initial=0))
        self._head = lru_cache(maxsize=OPEN_HEADS)(self._load_head)
        self._entry = lru_cache(maxsize=OPEN_ENTRIES)(self._load_entry)
        store.keep(manifest.fingerprint, manifest.size)

    def __reduce__(self):  # caches stay behind when a worker process is spawned
        return _reopen, (self.store, self.manifest, self.split, MODALITIES.described())

    @classmethod
    def open(
        cls, path: str | Path, settings: StoreSettings = DEFAULTS, *, split: str = ALL
    ) -> "ShardDataset":
        """Open a dataset and check its manifest and, of local shards, the sizes of all files.

        Over a network that would be one request a file. There a missing or short file is found
        when it is read.

        Args:
            path: folder or URL.
            settings: how files are read.
            split: the samples that are for this, see ``data/tiles/splits.py``.

        Raises:
            InputError: there is no dataset, it is damaged, or it has no such samples; names the
                first thing wrong.
        """
        store = Store(path, settings)
        if store.size(MANIFEST) is None:
            raise InputError(
                f"{path}: expected a sharded dataset, found no {MANIFEST}; "
                f"run skysense shards (the same command continues an interrupted build)"
            )
        manifest = _read_manifest(store)
        if not store.remote:
            for shard in manifest.shards:
                _check_size(store, tar_name(shard.name), shard.size)
                _check_size(store, index_name(shard.name), shard.index_size)
        try:
            return cls(store, manifest, split)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def know_sensors(self) -> None:
        """Make this process know the dataset's sensors, and which statistics they have here.

        That built-in sensors have the built-in statistics is said too. So two datasets of one
        process cannot mean different numbers by the same pixels.
        """
        described = sensors_of(self.manifest.sensors)
        keys = {sensor.key for sensor in described}
        rest = [sensor for sensor in MODALITIES.built_in if sensor.key not in keys]
        MODALITIES.add([*described, *rest], self.path)

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> list[str]:
        """Keys of all samples, in order; reads every index."""
        return [self.entry(sample).key for sample in range(len(self))]

    def entry(self, sample: int) -> IndexEntry:
        """What the index says of a sample.

        Raises:
            InputError: the index is damaged, or there is no such sample.
        """
        return self._entry(sample)

    def region(self, sample: int) -> int:
        """Index of a sample's region in the region table; ``NO_REGION`` without a place."""
        shard, row = self._locate(sample)
        return self.shards[shard].regions[row]

    def shard_name(self, sample: int) -> str:
        """The shard that holds a sample."""
        shard, _ = self._locate(sample)
        return self.shards[shard].name

    def read(self, sample: int, wants: Sequence[Want]) -> list[bytes]:
        """Read members or frames of one sample, in as few requests as lie close together.

        Args:
            sample: its number.
            wants: members and frames.

        Returns:
            The bytes of each, checked against their CRC32C.

        Raises:
            InputError: something is absent, cut short or damaged; names key, field and shard.
        """
        tar = tar_name(self.shard_name(sample))
        entry = self.entry(sample)
        ranges = [self._range(entry, tar, field, frame) for field, frame in wants]
        try:
            return self.store.ranges(tar, ranges, block=entry.block)
        except ReadError as error:
            fields = _fields_of(wants, error)
            raise InputError(f"sample {entry.key!r}, {fields}: {error}") from error

    def read_member(self, sample: int, field: str) -> bytes:
        """Bytes of one member ("meta", "hr", "ms", "ms_valid", "labels", ...); see ``read``."""
        return self.read(sample, [(field, None)])[0]

    def read_frames(self, sample: int, field: str, frames: Sequence[int]) -> list[bytes]:
        """Compressed bytes of some frames of a series; the others are not read. See ``read``."""
        return self.read(sample, [(field, int(frame)) for frame in frames])

    def _range(self, entry: IndexEntry, tar: str, field: str, frame: int | None) -> Range:
        """Where a member or one of its frames lies."""
        if field not in entry.members:
            raise InputError(
                f"{self.path}/{tar}: sample {entry.key!r} has no field {field!r}, "
                f"only {sorted(entry.members)}"
            )
        member = entry.members[field]
        if frame is None:
            return Range(member.offset, member.size, member.crc32c)
        if member.frames is None:
            raise InputError(f"{self.path}/{tar}: sample {entry.key!r}: {field!r} has no frames")
        offset, size, crc32c = member.frames[frame]
        return Range(member.offset + offset, size, crc32c)

    def _locate(self, sample: int) -> tuple[int, int]:
        """Shard number and row of a sample."""
        if not 0 <= sample < len(self):
            raise InputError(f"{self.path}: sample {sample} is outside the {len(self)} samples")
        shard = bisect_right(self._starts, sample) - 1
        return shard, sample - self._starts[shard]

    def _load_head(self, shard: int) -> IndexHead:
        """The first line of a shard's index."""
        record = self.shards[shard]
        size, crc32c = record.head
        return IndexHead.parse(*self._index_line(record.name, Range(0, size, crc32c)))

    def _load_entry(self, sample: int) -> IndexEntry:
        """A sample's line of its index."""
        shard, row = self._locate(sample)
        record = self.shards[shard]
        head_size, _ = record.head
        offset, size, crc32c = self._head(shard).rows[row]
        line = Range(head_size + offset, size, crc32c)
        return IndexEntry.parse(*self._index_line(record.name, line))

    def _index_line(self, shard: str, line: Range) -> tuple[bytes, str]:
        """One line of an index, and where it lies, for messages."""
        name = index_name(shard)
        (data,) = self.store.ranges(name, [line])
        return data, f"{self.path}/{name}: line at byte {line.offset}"


def _reopen(
    store: Store, manifest: Manifest, split: str, sensors: list[tuple[Modality, Authority]]
) -> ShardDataset:
    """A dataset in another process, which learns the sensors that the first one knew."""
    for sensor, authority in sensors:
        MODALITIES.add([sensor], "the process that started this one", authority)
    return ShardDataset(store, manifest, split)


def _read_manifest(store: Store) -> Manifest:
    """Read and check the manifest of a dataset."""
    where = f"{store.root}/{MANIFEST}"
    valid = None
    if store.remote:
        valid = _is_json
    data = store.read(MANIFEST, valid)
    try:
        content = json.loads(data)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error}); build the shards again") from error
    found = None
    if isinstance(content, dict):
        found = (content.get("format"), content.get("version"))
    if found != (FORMAT, VERSION):
        raise InputError(
            f"{where}: expected format {FORMAT!r} version {VERSION}, found {found}; "
            f"build the shards again"
        )
    if content.get("hash") != manifest_hash(content):
        raise InputError(
            f"{where}: its content does not fit its hash; it is damaged or was changed by hand, "
            f"copy it again or build the shards again"
        )
    return Manifest.parse(data, where)


def _check_size(store: Store, name: str, size: int) -> None:
    """Refuse a file that is missing or has another size than the manifest says."""
    found = store.size(name)
    if found == size:
        return
    actual = f"{found} bytes"
    if found is None:
        actual = "no such file"
    raise InputError(
        f"{store.root}/{name}: expected {size} bytes, found {actual}; "
        f"copy the shard again or build the shards again"
    )


def _is_json(data: bytes) -> bool:
    """Whether a file arrived whole."""
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _fields_of(wants: Sequence[Want], error: ReadError) -> str:
    """The field or fields that an error of the store is about."""
    positions = error.positions or range(len(wants))
    fields = sorted({wants[i][0] for i in positions})
    if len(fields) == 1:
        return f"field {fields[0]!r}"
    return f"fields {fields}"
