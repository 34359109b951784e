"""A whole preparation run: tiles made by many processes in a folder beside the target, published
with one rename.

What is done stands on the disk alone: a tile is whole once it is in ``<out>.partial``, and the
journal ``<out>.partial.jsonl`` has one line for each tile that is made or rejected. So a run can be
killed at any moment, and the next one goes on; the archive that comes out has the same bytes.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from data.errors import InputError
from data.files import publish_folder
from data.hashing import content_hash
from data.jobs.journal import CLAIMED, Journal, hold
from data.jobs.pool import Died, cores, in_processes
from data.jobs.progress import Progress
from data.prepare.build import build_tile
from data.prepare.manifest.read import Entry, read_manifest
from data.tiles.archive import (
    FORMAT,
    VERSION,
    check_archive,
    check_writable,
    create_archive,
    discard_tile,
    is_intact,
    write_tile,
)
from data.tiles.classes import class_table
from data.tiles.tile import UNLABELLED, Tile

REPORT = "report.json"
WHOLE = "report_hash"  # key of the journal's last record: nothing is left but the rename
NAMED = 20  # rejected tiles that an error names


def prepare(
    manifest: str | Path,
    out: str | Path,
    overwrite: bool = False,
    *,
    tiles: str | Path | None = None,
    workers: int | None = None,
    restart: bool = False,
    retry_rejected: bool = False,
    max_rejected: int | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Make the archive ``out`` from a manifest and return its report, which is also stored as
    report.json in it.

    Args:
        overwrite: replace an archive at ``out``, once the new one is whole.
        tiles: list of tiles, for a manifest that needs one (see ``read_manifest``).
        workers: processes; None for one a core, 0 to work in this process.
        restart: throw away what an unfinished run has made; without it that run is continued.
        retry_rejected: try tiles again that an unfinished run has rejected.
        max_rejected: stop when more tiles than this are rejected; None for no limit.
        say: takes lines of progress, and one for each rejected tile.

    Raises InputError when the manifest or ``out`` is wrong, when an unfinished run of another
    manifest is there, when more than ``max_rejected`` tiles or all are rejected. What is made so
    far stays for the next run."""
    out = Path(out)
    staging, notebook = _beside(out, ".partial"), _beside(out, ".partial.jsonl")
    check_writable(out, overwrite or notebook.exists())
    entries = read_manifest(manifest, tiles)
    with Journal(notebook, _plan(manifest, tiles), restart=restart) as journal:
        if not _is_published(out, staging, journal):
            check_writable(out, overwrite)
            records, doubtful = _resume(staging, journal, restart, retry_rejected)
            if records or doubtful:
                say(
                    f"{staging}: {len(records)} of {len(entries)} tiles are done, {len(doubtful)} will be looked at, "
                    f"the rest follows"
                )
            todo = [
                (entry, doubtful.get(entry.key)) for entry in entries if entry.key not in records
            ]
            todo.sort(key=lambda task: task[1] is not None)  # what is missing first
            _fill(
                staging,
                journal,
                todo,
                records,
                cores() if workers is None else workers,
                max_rejected,
                say,
            )
            _finish(staging, journal, [records[entry.key] for entry in entries])
            _publish(staging, out)
            journal.force()  # the new name, before the journal goes
        if _replaced(staging).exists():
            shutil.rmtree(_replaced(staging))
        journal.remove()
    return json.loads((out / REPORT).read_bytes())


def make_tile(archive: Path, task: tuple[Entry, dict | None]) -> dict:
    """Read, co-register and store one tile. Returns its record, which has a ``digest`` unless the
    tile is rejected.

    ``task``: the manifest's entry and, if the tile was made before a power cut perhaps, its record:
    then it stays if it is what the record says. Raises InputError when the archive cannot be
    written."""
    entry, made = task
    if made and is_intact(archive, entry.key, made["digest"]):
        return made
    discard_tile(archive, entry.key)  # what a killed worker has left
    try:
        for reader in entry.readers:
            reader.check()
        tile, notes = build_tile(entry)
    except InputError as error:
        return _rejected(entry.key, [f"tile rejected: {error}"])
    if tile is None:
        return _rejected(entry.key, notes)
    try:
        digest = write_tile(archive, tile)
    except OSError as error:
        raise InputError(
            f"{archive}: tile {entry.key!r} cannot be written ({error}); put that right and start the "
            f"same command again"
        ) from error
    return {**summary(tile), "digest": digest, "notes": notes}


def summary(tile: Tile) -> dict:
    """What a report says of one tile."""
    labels = tile.arrays.get("labels")
    return {
        "key": tile.key,
        "cells": tile.cells,
        "lon": round(tile.lon, 6),
        "lat": round(tile.lat, 6),
        "crs": tile.crs,
        "frames": {name: len(tile.dates[name]) for name in tile.modalities},
        "valid": {name: round(float(tile.valid[name].mean()), 4) for name in tile.modalities},
        "labelled": None if labels is None else round(float((labels != UNLABELLED).mean()), 4),
    }


def _rejected(key: str, notes: list[str]) -> dict:
    """The record of a tile that was not made."""
    return {"key": key, "notes": notes}


def _beside(out: Path, suffix: str) -> Path:
    """A path in the same folder, so that one rename moves it to ``out``."""
    return out.with_name(out.name + suffix)


def _plan(manifest: str | Path, tiles: str | Path | None) -> str:
    """A hash of what decides the archive: the manifest, the format and the classes."""
    hashes = [
        content_hash(Path(path).read_bytes()) for path in (manifest, tiles) if path is not None
    ]
    return content_hash(json.dumps([FORMAT, VERSION, class_table(), hashes]).encode())


def _is_published(out: Path, staging: Path, journal: Journal) -> bool:
    """Whether the run was killed between the rename and the removal of its journal."""
    hashes = [record[WHOLE] for record in journal.records if WHOLE in record]
    report = out / REPORT
    return (
        bool(hashes)
        and not staging.exists()
        and report.is_file()
        and content_hash(report.read_bytes()) == hashes[-1]
    )


def _resume(
    staging: Path, journal: Journal, restart: bool, retry_rejected: bool
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Records by key of what an unfinished run has done; then of the tiles that it made but that a
    power cut may have spoilt. Afterwards ``staging`` is an archive of just these tiles."""
    if CLAIMED not in journal.records and staging.exists() and any(staging.iterdir()):
        try:
            if not restart:
                raise InputError(
                    f"{staging}: cannot be continued, its journal {journal.path.name} is not there; bring "
                    f"it back, or pass --restart to throw {staging.name} away"
                )
            check_writable(staging, overwrite=True)
        except InputError:
            journal.remove()  # a new one, that says nothing of what is there
            raise
    if not staging.exists() or not any("key" in record for record in journal.records):
        journal.clear()
        journal.append(CLAIMED)
        if staging.exists():
            shutil.rmtree(staging)
        create_archive(staging)
        return {}, {}
    check_archive(staging)
    with os.scandir(staging / "tiles") as found:
        there = {item.name for item in found if item.is_dir()}
    done, doubtful = {}, {}
    for number, record in enumerate(journal.records):
        key = record.get("key")
        done.pop(key, None), doubtful.pop(key, None)  # a later record of a tile holds
        if key in there and "digest" in record:
            (done if number < journal.on_disk else doubtful)[key] = record
        elif key and "digest" not in record and not retry_rejected:
            done[key] = record
    made = {key for key, record in done.items() if "digest" in record} | doubtful.keys()
    for name in there - made:
        shutil.rmtree(staging / "tiles" / name)
    return done, doubtful


def _fill(
    staging: Path,
    journal: Journal,
    todo: list[tuple[Entry, dict | None]],
    records: dict[str, dict],
    workers: int,
    max_rejected: int | None,
    say: Callable[[str], None],
) -> None:
    """Make every tile that is still to be made; add its record."""
    progress = Progress(len(records) + len(todo), done=len(records), unit="tiles", say=say)
    rejected = [key for key, record in records.items() if "digest" not in record]
    _check_limit(rejected, max_rejected)
    with closing(
        in_processes(
            partial(make_tile, staging), todo, workers=workers, setup=partial(hold, journal.path)
        )
    ) as made:
        for (entry, _), record in made:
            if isinstance(record, Died):
                discard_tile(staging, entry.key)
                record = _rejected(
                    entry.key,
                    [
                        f"tile rejected: two processes that made it were ended "
                        f"{record.reason}; a file that breaks its library, or too little "
                        f"memory"
                    ],
                )
            journal.append(record)
            records[entry.key] = record
            notes = [f"  {entry.key}: {note}" for note in record["notes"]]
            progress.step(_line(record), notes, urgent="digest" not in record)
            if "digest" not in record:
                rejected.append(entry.key)
                _check_limit(rejected, max_rejected)


def _check_limit(rejected: list[str], allowed: int | None) -> None:
    """Raise InputError when too many tiles are rejected."""
    if allowed is not None and len(rejected) > allowed:
        more = f" and {len(rejected) - NAMED} more" if len(rejected) > NAMED else ""
        raise InputError(
            f"{len(rejected)} tiles rejected, --max_rejected allows {allowed}: "
            f"{', '.join(rejected[:NAMED])}{more}; correct their sources and continue with "
            f"--retry_rejected, or allow more"
        )


def _line(record: dict) -> str:
    """A record as one line of progress."""
    if "digest" not in record:
        return f"{record['key']}: rejected"
    frames = ", ".join(f"{name} {count}" for name, count in record["frames"].items())
    labelled = "no labels" if record["labelled"] is None else f"{record['labelled']:.0%} labelled"
    return (
        f"{record['key']}: {record['cells']} x {record['cells']} cells, frames {frames}, {labelled}"
    )


def _finish(staging: Path, journal: Journal, records: list[dict]) -> None:
    """Write the report of all records, which come in the order of the manifest, and force
    everything to the disk."""
    tiles = [record for record in records if "digest" in record]
    rejected = [record for record in records if "digest" not in record]
    if not tiles:
        shutil.rmtree(staging)
        journal.remove()
        raise InputError(
            f"no tile is usable, {len(rejected)} rejected; the first one: {rejected[0]['key']}: "
            f"{rejected[0]['notes'][-1]}"
        )
    lists = (
        f'"{name}": [\n' + ",\n".join(map(json.dumps, part)) + "\n]"  # one record a line
        for name, part in (("tiles", tiles), ("rejected", rejected))
    )
    report = "{" + ", ".join(lists) + "}\n"
    (staging / REPORT).write_text(report)
    journal.append({WHOLE: content_hash(report.encode())})
    journal.force()


def _publish(staging: Path, out: Path) -> None:
    """Move the whole archive to its place; an old one steps aside only now."""
    publish_folder(staging, out, aside=_replaced(staging))


def _replaced(staging: Path) -> Path:
    """Where an old archive waits until the new one is in its place."""
    return _beside(staging, ".old")
