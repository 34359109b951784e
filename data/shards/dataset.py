"""The reading side of the training format (``data/shards/writer.py``): any sample, any member, any
frame, checked."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from data.errors import InputError
from data.shards.files import FORMAT, MANIFEST, VERSION, index_name, manifest_hash, tar_name
from data.storage.store import Range, Store, StoreSettings
from data.tiles.regions import RegionTable

OPEN_HEADS = 4096  # index heads that one process keeps: some 20 bytes a sample
OPEN_ENTRIES = 256  # samples: an entry is asked for several times while its sample is read

Want = tuple[str, int | None]  # field of a sample; frame of a stack, or None for the whole member


class ShardDataset:
    """A folder of shards, local or behind a URL, opened with ``ShardDataset.open``. Samples are
    numbered through all shards.

    Only the manifest stays in memory; indexes and files are opened when asked for, in each process.
    """

    def __init__(self, store: Store, manifest: dict):
        self.store, self.manifest = store, manifest
        self.path: str = store.root
        self.fingerprint: str = manifest["fingerprint"]
        self.classes: list[dict] = manifest["classes"]  # {"index", "name", "text"}
        self.attribution: list[dict] = manifest["attribution"]
        self.regions = RegionTable.from_json(manifest["regions"])
        self._starts = list(
            accumulate((shard["samples"] for shard in manifest["shards"]), initial=0)
        )
        self._head = lru_cache(maxsize=OPEN_HEADS)(self._load_head)
        self._entry = lru_cache(maxsize=OPEN_ENTRIES)(self._load_entry)
        store.keep(self.fingerprint, sum(shard["size"] for shard in manifest["shards"]))

    def __reduce__(self):  # caches stay behind when a worker process is spawned
        return ShardDataset, (self.store, self.manifest)

    @classmethod
    def open(cls, path: str | Path, settings: StoreSettings = StoreSettings()) -> "ShardDataset":
        """Check the manifest and, of local shards, presence and exact size of every file (over a
        network that would be one request a file; there a missing or short one is found when it is
        read).

        Raises InputError with the first thing wrong."""
        store = Store(path, settings)
        if store.size(MANIFEST) is None:
            raise InputError(
                f"{path}: expected a sharded dataset, found no {MANIFEST}; "
                f"run skysense shards (the same command continues an interrupted build)"
            )
        where = f"{store.root}/{MANIFEST}"
        try:
            manifest = json.loads(store.read(MANIFEST, _is_json if store.remote else None))
        except ValueError as error:
            raise InputError(
                f"{where}: not valid JSON ({error}); build the shards again"
            ) from error
        found = (
            (manifest.get("format"), manifest.get("version"))
            if isinstance(manifest, dict)
            else None
        )
        if found != (FORMAT, VERSION):
            raise InputError(
                f"{where}: expected format {FORMAT!r} version {VERSION}, found {found}; "
                f"build the shards again"
            )
        if manifest.get("hash") != manifest_hash(manifest):
            raise InputError(
                f"{where}: its content does not fit its hash; it is damaged or was changed by hand, "
                f"copy it again or build the shards again"
            )
        for shard in manifest["shards"] if not store.remote else ():
            for name, size in (
                (tar_name(shard["name"]), shard["size"]),
                (index_name(shard["name"]), shard["index_size"]),
            ):
                there = store.size(name)
                if there != size:
                    raise InputError(
                        f"{store.root}/{name}: expected {size} bytes, found "
                        f"{'no such file' if there is None else f'{there} bytes'}; "
                        f"copy the shard again or build the shards again"
                    )
        return cls(store, manifest)

    def __len__(self) -> int:
        return self._starts[-1]

    def keys(self) -> list[str]:
        """Keys of all samples, in order; reads every index."""
        return [self.entry(sample)["key"] for sample in range(len(self))]

    def entry(self, sample: int) -> dict:
        """The index entry: key, cells, lon, lat, modalities, dates, usable (frames with valid
        pixels), members, block ([offset, size] of the sample in its tar). Raises InputError when
        the index is damaged."""
        return self._entry(sample)

    def region(self, sample: int) -> int:
        """Index in the region table."""
        shard, row = self._locate(sample)
        return self.manifest["shards"][shard]["regions"][row]

    def read(self, sample: int, wants: Sequence[Want]) -> list[bytes]:
        """Bytes of several members or frames of one sample, each checked against its CRC32C, in as
        few requests as lie close together. Raises InputError naming key, field and shard for what
        is absent, cut short or damaged."""
        shard, _ = self._locate(sample)
        name, entry = tar_name(self.manifest["shards"][shard]["name"]), self.entry(sample)
        ranges = [self._range(entry, name, field, frame) for field, frame in wants]
        try:
            return self.store.ranges(name, ranges, block=tuple(entry["block"]))
        except InputError as error:
            raise InputError(f"sample {entry['key']!r}, {_named(wants, error)}: {error}") from error

    def read_member(self, sample: int, field: str) -> bytes:
        """Bytes of one member ("meta", "hr", "ms", "ms_valid", "labels", ...); see ``read``."""
        return self.read(sample, [(field, None)])[0]

    def read_frames(self, sample: int, field: str, frames: Sequence[int]) -> list[bytes]:
        """Compressed bytes of some frames of a stack; the others are not touched. See ``read``."""
        return self.read(sample, [(field, int(frame)) for frame in frames])

    def _range(self, entry: dict, tar: str, field: str, frame: int | None) -> Range:
        """Where a member or one of its frames lies."""
        if field not in entry["members"]:
            raise InputError(
                f"{self.path}/{tar}: sample {entry['key']!r} has no field {field!r}, "
                f"only {sorted(entry['members'])}"
            )
        member = entry["members"][field]
        if frame is None:
            return Range(member["offset"], member["size"], member["crc32c"])
        offset, size, crc = member["frames"][frame]
        return Range(member["offset"] + offset, size, crc)

    def _locate(self, sample: int) -> tuple[int, int]:
        """Shard number and row of a sample."""
        if not 0 <= sample < len(self):
            raise InputError(f"{self.path}: sample {sample} is outside the {len(self)} samples")
        shard = bisect_right(self._starts, sample) - 1
        return shard, sample - self._starts[shard]

    def _load_head(self, shard: int) -> list[list[int]]:
        """Where the lines of a shard's index lie: [offset, size, crc32c] a sample."""
        record = self.manifest["shards"][shard]
        size, crc = record["head"]
        (data,) = self.store.ranges(index_name(record["name"]), [Range(0, size, crc)])
        return json.loads(data)["rows"]

    def _load_entry(self, sample: int) -> dict:
        """One line of an index."""
        shard, row = self._locate(sample)
        record = self.manifest["shards"][shard]
        offset, size, crc = self._head(shard)[row]
        (data,) = self.store.ranges(
            index_name(record["name"]), [Range(record["head"][0] + offset, size, crc)]
        )
        return json.loads(data)


def _is_json(data: bytes) -> bool:
    """Whether a file arrived whole."""
    try:
        json.loads(data)
        return True
    except ValueError:
        return False


def _named(wants: Sequence[Want], error: InputError) -> str:
    """The field or fields that an error of the store speaks of."""
    fields = sorted({wants[i][0] for i in getattr(error, "positions", range(len(wants)))})
    return f"field {fields[0]!r}" if len(fields) == 1 else f"fields {fields}"
