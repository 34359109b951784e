"""A whole packing run: many processes write the shards of an archive, over any number of starts.

Shard i holds a fixed stretch of the seeded order of the tiles of a split, so shards do not depend
on each other and may be written in any order. The folder's journal has one line for each shard that
is whole. A killed run is continued from it to the same bytes.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data.errors import InputError
from data.hashing import content_hash
from data.jobs.journal import CLAIMED, Journal
from data.jobs.places import Place
from data.jobs.progress import Progress
from data.jobs.tasks import Died, on_workers
from data.shards.encode import DEFAULT_OPTIONS, ShardOptions
from data.shards.files import MANIFEST, index_name, tar_name
from data.shards.records import FORMAT, VERSION, Manifest
from data.shards.writer import (
    WrittenShard,
    claim,
    discard_partial,
    packing_order,
    write_manifest,
    write_shard,
)
from data.tiles.archive import (
    Stamp,
    archive_sensors,
    check_archive,
    read_tile,
    stored_digest,
    stored_stamp,
    tile_digest,
    tile_keys,
)
from data.tiles.classes import class_table
from data.tiles.definitions import Definition
from data.tiles.modalities import MODALITIES
from data.tiles.shrink import shrink_advice
from data.tiles.splits import SPLITS, TRAIN
from data.tiles.tile import Tile

JOURNAL = "shards.partial.jsonl"
NUMBER = "number"  # key of a shard's number in the journal
# Threads that read the tiles' digests: a network disk answers slowly, but to many at once.
READERS = 16


@dataclass(frozen=True)
class Job:
    """What a run packs, and where.

    Attributes:
        archive: the tiles.
        out: the dataset.
        options: how tiles are packed.
    """

    archive: Path
    out: Path
    options: ShardOptions


@dataclass(frozen=True)
class Task:
    """One shard to write: its number and the keys of its tiles."""

    number: int
    keys: list[str]

    def __str__(self) -> str:
        return f"shard {self.number} (tiles {self.keys[0]!r} to {self.keys[-1]!r})"


def pack(
    archive: str | Path,
    out: str | Path,
    options: ShardOptions = DEFAULT_OPTIONS,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    place: Place = None,
    restart: bool = False,
    native_cells: int | None = None,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Pack the tiles of an archive into a folder.

    Args:
        archive: the tiles.
        out: the folder; its manifest is written last.
        options: how tiles are packed.
        overwrite: remove a dataset that is there, first.
        workers: processes; None leaves it to the place, 0 is to work in this process.
        place: where the processes are; None for this machine, with one a core.
        restart: throw away what an unfinished run has written; without it that run is continued.
        native_cells: side of a tile that a global view of the run shows pixel by pixel; says which
            tiles are too large. None: not told.
        say: takes lines of progress.

    Raises:
        InputError: the archive has no tiles or a damaged one, the folder must not be written, or
            it holds an unfinished run of other tiles or options.
    """
    options.check()
    archive = Path(archive)
    sensors = archive_sensors(archive)
    out = Path(out)
    keys = tile_keys(archive)
    if not keys:
        raise InputError(f"{archive}: no tiles to pack; prepare an archive first")
    job = Job(archive, out, options)
    stamps = _chosen(_stamps(archive, keys), options.split, archive)
    tasks = _tasks(stamps, options)
    _tell_too_large(archive, stamps, native_cells, say)
    if not out.is_dir():
        claim(out, overwrite=overwrite)
    with Journal(out / JOURNAL, _plan(stamps, options, sensors), restart=restart) as journal:
        written = _resume(out, journal, overwrite=overwrite or restart)
        if (out / MANIFEST).exists():  # killed between the last rename and the journal's removal
            manifest = Manifest.parse((out / MANIFEST).read_bytes(), where=str(out / MANIFEST))
        else:
            if written:
                say(f"{out}: {len(written)} of {len(tasks)} shards are done, the rest follows")
            rest = [task for task in tasks if task.number not in written]
            pack_one = partial(pack_shard, job)
            results = on_workers(pack_one, rest, workers=workers, place=place, lease=journal.lease)
            progress = Progress(len(tasks), done=len(written), unit="shards", say=say)
            with closing(results):
                _record(results, journal, written, progress)
            manifest = _finish(job, journal, [written[task.number] for task in tasks], sensors)
        journal.force()  # the manifest, before the journal goes
        journal.remove()
    return manifest


@MODALITIES.apart()
def pack_shard(job: Job, task: Task) -> WrittenShard:
    """Write one shard.

    Raises:
        InputError: a tile is not what it was when it was written, or the disk refuses.
    """
    check_archive(job.archive)  # and know its sensors
    try:
        return write_shard(job.out, task.number, _intact_tiles(job, task), job.options)
    except OSError as error:
        raise InputError(
            f"{job.out}: shard {task.number} cannot be written ({error}); put that right and start "
            f"the same command again"
        ) from error


def _intact_tiles(job: Job, task: Task) -> Iterator[Tile]:
    """The tiles of a shard; each must have the digest that it was stored with."""
    for key in task.keys:
        tile = read_tile(job.archive, key)
        expected = stored_digest(job.archive, key)
        if tile_digest(tile) != expected:
            raise InputError(
                f"{job.archive}: tile {key!r} has another content than its digest {expected} says; "
                f"it was changed or damaged, prepare it again"
            )
        yield tile


def _stamps(archive: Path, keys: list[str]) -> dict[str, Stamp]:
    """The stamp of every tile, by key."""
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(keys, pool.map(partial(stored_stamp, archive), keys)))


def _chosen(stamps: dict[str, Stamp], split: str, archive: Path) -> dict[str, Stamp]:
    """The tiles of a split; all where it is empty. A tile that says nothing is for training.

    Raises:
        InputError: there are none.
    """
    if not split:
        return stamps
    chosen = {}
    splits: Counter[str] = Counter()
    for key, stamp in stamps.items():
        own = stamp.split or TRAIN
        splits[own] += 1
        if own == split:
            chosen[key] = stamp
    if not chosen:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(splits.items()))
        raise InputError(f"{archive}: no tiles of the split {split!r}; there are: {counts}")
    return chosen


def _tell_too_large(
    archive: Path,
    stamps: dict[str, Stamp],
    native_cells: int | None,
    say: Callable[[str], None],
) -> None:
    """Say which tiles are too large for global views, if their side is known."""
    if native_cells is None:
        return
    advice = shrink_advice(Counter(stamp.cells for stamp in stamps.values()), native_cells)
    if advice is not None:
        say(f"{archive}: {advice}")


def _tasks(stamps: dict[str, Stamp], options: ShardOptions) -> list[Task]:
    """All shards to write: those for training, then those of other splits."""
    size = options.samples_per_shard
    tasks: list[Task] = []
    for split in SPLITS:
        keys = [key for key, stamp in stamps.items() if (stamp.split or TRAIN) == split]
        order = packing_order(len(keys), options.seed)
        for start in range(0, len(keys), size):
            numbers = order[start : start + size]
            tasks.append(Task(len(tasks), [keys[i] for i in numbers]))
    return tasks


def _plan(stamps: dict[str, Stamp], options: ShardOptions, sensors: Sequence[Definition]) -> str:
    """A hash of what decides the shards: format, classes, options, sensors, tiles by content."""
    digests = [(key, stamp.digest) for key, stamp in stamps.items()]
    plan = [FORMAT, VERSION, class_table(), asdict(options), digests]
    if sensors:
        plan.append([sensor.to_json() for sensor in sensors])
    return content_hash(json.dumps(plan).encode())


def _resume(out: Path, journal: Journal, *, overwrite: bool) -> dict[int, WrittenShard]:
    """The shards that an unfinished run has written and that are still whole, by number."""
    if CLAIMED not in journal.records:
        try:
            claim(out, overwrite=overwrite)
        except InputError:
            journal.remove()
            raise
        journal.clear()
        journal.append(CLAIMED)
        return {}
    written = {}
    for record in journal.records:
        if record == CLAIMED:
            continue
        number, shard = _from_journal(record, journal.path)
        if _is_whole(out, shard):
            written[number] = shard
    return written


def _to_journal(number: int, shard: WrittenShard) -> dict:
    """A shard as a record of the journal."""
    return {NUMBER: number, **shard.model_dump()}


def _from_journal(record: dict, path: Path) -> tuple[int, WrittenShard]:
    """The inverse of ``_to_journal``."""
    fields = dict(record)
    number = fields.pop(NUMBER)
    return number, WrittenShard.parse(json.dumps(fields).encode(), where=str(path))


def _is_whole(out: Path, shard: WrittenShard) -> bool:
    """Whether a shard's files have the size and the index the hash that were recorded.

    The tar's content is under the checksums of the index, which training compares.
    """
    tar = out / tar_name(shard.name)
    index = out / index_name(shard.name)
    return (
        tar.is_file()
        and tar.stat().st_size == shard.size
        and index.is_file()
        and content_hash(index.read_bytes()) == shard.index_hash
    )


def _finish(
    job: Job, journal: Journal, shards: list[WrittenShard], sensors: Sequence[Definition]
) -> Manifest:
    """Make a dataset of all shards, once no worker is at work any more."""
    journal.shut_out_workers()
    discard_partial(job.out)
    journal.force()
    return write_manifest(job.out, shards, job.options, sensors)


def _record(
    results: Iterable[tuple[Task, WrittenShard | Died]],
    journal: Journal,
    written: dict[int, WrittenShard],
    progress: Progress,
) -> None:
    """Take in the shards that workers write, until all are there.

    Raises:
        InputError: one could not be written.
    """
    for task, shard in results:
        if isinstance(shard, Died):
            raise InputError(
                f"{journal.path.parent}: {task}: two processes that wrote it were ended{shard}; "
                f"give them more memory, or use fewer workers"
            )
        journal.append(_to_journal(task.number, shard))
        written[task.number] = shard
        progress.step(f"{shard.name}: {shard.samples} samples, {shard.size / 1e6:.1f} MB")
