"""A whole packing run: the shards of an archive, written by many processes, in any order, over any
number of starts.

Shard i holds a fixed stretch of the seeded order of the tiles, so shards do not depend on each
other. The folder's journal has one line for each shard that is whole; a killed run is continued
from it to the same bytes.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from data.errors import InputError
from data.hashing import content_hash
from data.jobs.journal import CLAIMED, Journal, hold
from data.jobs.pool import Died, cores, in_processes
from data.jobs.progress import Progress
from data.shards.files import FORMAT, MANIFEST, VERSION, index_name, tar_name
from data.shards.writer import ShardOptions, claim, packing_order, write_manifest, write_shard
from data.tiles.archive import check_archive, read_tile, stored_digest, tile_digest, tile_keys
from data.tiles.classes import class_table

JOURNAL = "shards.partial.jsonl"
READERS = (
    16  # threads that read the tiles' digests: a network disk answers slowly, but to many at once
)


def pack(
    archive: str | Path,
    out: str | Path,
    options: ShardOptions = ShardOptions(),
    overwrite: bool = False,
    *,
    workers: int | None = None,
    restart: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Pack the tiles of an archive into the folder ``out`` and return the manifest, which is
    written last.

    Args:
        overwrite: remove a dataset that is there, first.
        workers: processes; None for one a core, 0 to work in this process.
        restart: throw away what an unfinished run has written; without it that run is continued.
        say: takes lines of progress.

    Raises InputError for an archive without tiles or with a damaged one, a folder that must not be
    written, or one with an unfinished run of other tiles or options."""
    options.check()
    archive, out = check_archive(archive), Path(out)
    keys = tile_keys(archive)
    if not keys:
        raise InputError(f"{archive}: no tiles to pack; prepare an archive first")
    tasks = _tasks(keys, options)
    if not out.is_dir():
        claim(out, overwrite)
    with Journal(out / JOURNAL, _plan(archive, keys, options), restart=restart) as journal:
        records = _resume(out, journal, overwrite or restart)
        if (
            out / MANIFEST
        ).exists():  # killed between the last rename and the removal of the journal
            manifest = json.loads((out / MANIFEST).read_bytes())
        else:
            if records:
                say(f"{out}: {len(records)} of {len(tasks)} shards are done, the rest follows")
            _fill(
                archive,
                out,
                options,
                tasks,
                records,
                journal,
                cores() if workers is None else workers,
                say,
            )
            journal.force()
            manifest = write_manifest(
                out, [records[number] for number in range(len(tasks))], options
            )
        journal.force()  # the manifest, before the journal goes
        journal.remove()
    return manifest


def pack_shard(
    archive: Path, out: Path, options: ShardOptions, task: tuple[int, list[str]]
) -> dict:
    """Write the shard of a number with the tiles of some keys; returns its record and number.

    Raises InputError for a tile that is not what it was when it was written, or when the disk
    refuses."""
    number, keys = task
    try:
        return {
            "number": number,
            **write_shard(out, number, (_intact(archive, key) for key in keys), options),
        }
    except OSError as error:
        raise InputError(
            f"{out}: shard {number} cannot be written ({error}); put that right and start the same "
            f"command again"
        ) from error


def _intact(archive: Path, key: str):
    """A tile whose content has the digest that it was stored with."""
    tile, expected = read_tile(archive, key), stored_digest(archive, key)
    if tile_digest(tile) != expected:
        raise InputError(
            f"{archive}: tile {key!r} has another content than its digest {expected} says; it was "
            f"changed or damaged, prepare it again"
        )
    return tile


def _tasks(keys: list[str], options: ShardOptions) -> list[tuple[int, list[str]]]:
    """(number, keys) of every shard."""
    order, size = packing_order(len(keys), options.seed), options.samples_per_shard
    return [
        (start // size, [keys[i] for i in order[start : start + size]])
        for start in range(0, len(keys), size)
    ]


def _plan(archive: Path, keys: list[str], options: ShardOptions) -> str:
    """A hash of what decides the shards: format, classes, options, and key and content of every
    tile."""
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(partial(stored_digest, archive), keys))
    plan = [FORMAT, VERSION, class_table(), asdict(options), list(zip(keys, digests))]
    return content_hash(json.dumps(plan).encode())


def _resume(out: Path, journal: Journal, overwrite: bool) -> dict[int, dict]:
    """Records by number of the shards that an unfinished run has written and that are still there,
    whole."""
    if CLAIMED not in journal.records:
        try:
            claim(out, overwrite)
        except InputError:
            journal.remove()
            raise
        journal.clear()
        journal.append(CLAIMED)
        return {}
    shards = (record for record in journal.records if record != CLAIMED)
    return {record["number"]: record for record in shards if _is_whole(out, record)}


def _is_whole(out: Path, record: dict) -> bool:
    """Whether a shard's files have the size and the index the hash that were recorded. The tar's
    content is under the checksums of the index, which training compares."""
    tar, index = out / tar_name(record["name"]), out / index_name(record["name"])
    return (
        tar.is_file()
        and tar.stat().st_size == record["size"]
        and index.is_file()
        and content_hash(index.read_bytes()) == record["index_hash"]
    )


def _fill(
    archive: Path,
    out: Path,
    options: ShardOptions,
    tasks: list,
    records: dict[int, dict],
    journal: Journal,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """Write every shard that has no record yet; add its record."""
    progress = Progress(len(tasks), done=len(records), unit="shards", say=say)
    todo = (task for task in tasks if task[0] not in records)
    make = partial(pack_shard, archive, out, options)
    with closing(
        in_processes(make, todo, workers=workers, setup=partial(hold, journal.path))
    ) as made:
        for (number, keys), record in made:
            if isinstance(record, Died):
                raise InputError(
                    f"{out}: shard {number} (tiles {keys[0]!r} to {keys[-1]!r}): two processes that wrote "
                    f"it were ended {record.reason}; give them more memory, or use fewer workers"
                )
            journal.append(record)
            records[number] = record
            progress.step(
                f"{record['name']}: {record['samples']} samples, {record['size'] / 1e6:.1f} MB"
            )
