"""What an earlier run has done, an unfinished or a finished one.

To try rejected tiles again, a finished archive goes back to the place where it was made, with a
journal of the tiles that it has: so it is an unfinished one that lacks the others.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError
from data.jobs.journal import CLAIMED, Journal
from data.prepare.make import Task
from data.prepare.manifest.entry import Entry
from data.prepare.record import (
    PLAN,
    REPORT,
    LeftOutTile,
    MadeTile,
    RejectedTile,
    TileRecord,
    from_json,
)
from data.tiles.archive import check_archive


def reopen(out: Path, staging: Path, journal: Journal) -> None:
    """Make a finished archive an unfinished one that lacks its rejected tiles; else do nothing.

    The journal is whole on the disk before the archive moves: killed before, the archive is still
    finished, and the next call begins again.

    Args:
        out: the archive, if it is finished.
        staging: where it was made. An unfinished run there comes first.
        journal: of this run.

    Raises:
        InputError: the archive was made by another plan.
    """
    report_path = out / REPORT
    if staging.exists() or not report_path.is_file():
        return
    report = json.loads(report_path.read_bytes())
    if report.get(PLAN) != journal.plan:
        journal.remove()  # it is a new one
        raise InputError(
            f"{out}: was made with another manifest, tile list, sensors file or program version, "
            "so its rejected tiles cannot be tried alone; put their lines into a manifest of their "
            "own, or pass --overwrite without --retry_rejected to make all tiles again"
        )
    journal.start_from([CLAIMED, *report["tiles"]])
    os.rename(out, staging)


@dataclass
class EarlierWork:
    """What an unfinished run has done, by key."""

    records: dict[str, TileRecord]
    doubtful: dict[str, MadeTile]  # it made these, but a power cut may have spoilt them

    def of(self, total: int) -> str:
        """How much of all tiles is done, in words."""
        return (
            f"{len(self.records)} of {total} tiles are done, {len(self.doubtful)} will be looked "
            "at, the rest follows"
        )


def earlier_work(
    staging: Path, journal: Journal, entries: Sequence[Entry], *, retry_rejected: bool
) -> EarlierWork:
    """Read the journal, and leave just the tiles that it tells of in ``staging``.

    Args:
        staging: the archive.
        journal: what was done.
        entries: all tiles that shall be made. Others, of a scene whose file has changed, go.
        retry_rejected: forget the tiles that were rejected.
    """
    check_archive(staging)
    keys = {entry.key for entry in entries}
    with os.scandir(staging / "tiles") as items:
        present = {item.name for item in items if item.is_dir()}
    earlier = EarlierWork({}, {})
    for number, fields in enumerate(journal.records):
        if fields.get("key") not in keys:
            continue
        record = from_json(fields)
        # A later record of a tile replaces an earlier one.
        earlier.records.pop(record.key, None)
        earlier.doubtful.pop(record.key, None)
        if isinstance(record, LeftOutTile):
            earlier.records[record.key] = record
        elif isinstance(record, RejectedTile):
            if not retry_rejected:
                earlier.records[record.key] = record
        elif record.key in present:
            if number < journal.on_disk:
                earlier.records[record.key] = record
            else:
                earlier.doubtful[record.key] = record
    made = {key for key, record in earlier.records.items() if isinstance(record, MadeTile)}
    for name in present - made - earlier.doubtful.keys():
        shutil.rmtree(staging / "tiles" / name)
    return earlier


def tasks_of(entries: list[Entry], earlier: EarlierWork) -> list[Task]:
    """What is still to be done: first the tiles that are missing, then the doubtful ones."""
    missing = []
    doubtful = []
    for entry in entries:
        if entry.key in earlier.doubtful:
            doubtful.append(Task(entry, earlier.doubtful[entry.key]))
        elif entry.key not in earlier.records:
            missing.append(Task(entry))
    return missing + doubtful
