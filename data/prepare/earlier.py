"""What an earlier run has done, an unfinished or a finished one.

To try rejected tiles again, a finished archive goes back to the place where it was made, with a
journal of the tiles that it has: so it is an unfinished one that lacks the others.

Where the manifest has changed since, the journal begins again with the tiles whose entries are as
they were. From then on the archive is an unfinished one of the new manifest.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.errors import InputError
from data.jobs.journal import CLAIMED, Journal
from data.prepare.fingerprint import fingerprint
from data.prepare.make import Task
from data.prepare.manifest.entry import Entry
from data.prepare.manifest.expand import Tiles
from data.prepare.record import (
    PLAN,
    REPORT,
    LeftOutTile,
    MadeTile,
    RejectedTile,
    TileRecord,
    first_of,
    from_json,
)
from data.tiles.archive import check_archive, is_made_for
from data.tiles.definitions import Definition


@dataclass(frozen=True)
class Wanted:
    """What a run shall make."""

    plan: str  # hash of all that follows, as the user has written it
    tiles: Tiles
    sensors: Sequence[Definition]  # beside the built-in ones

    @property
    def entries(self) -> list[Entry]:
        """All tiles, in the order of the manifest."""
        return self.tiles.entries


def check_plan(journal: Journal, *, retry_rejected: bool) -> None:
    """Raise InputError for an unfinished run of another plan that may not be taken over."""
    if journal.is_foreign and not retry_rejected:
        raise InputError(
            f"{journal.path}: an unfinished run with another manifest, tile list, sensors file or "
            "program version is here; repeat its command, pass --retry_rejected to go on with its "
            "tiles that the manifest describes as before, or --restart to throw its work away"
        )


def reopen(out: Path, staging: Path, journal: Journal, wanted: Wanted) -> None:
    """Make a finished archive an unfinished one that lacks its rejected tiles; else do nothing.

    It also lacks those whose entries have changed. The journal is whole on the disk before the
    archive moves: killed before, the archive is still finished, and the next call begins again.

    Args:
        out: the archive, if it is finished.
        staging: where it was made. An unfinished run there comes first.
        journal: of this run.
        wanted: what this run shall make.

    Raises:
        InputError: the archive was made by another plan, and cannot become one of this plan.
    """
    report_path = out / REPORT
    if staging.exists() or not report_path.is_file():
        return
    report = json.loads(report_path.read_bytes())
    records = report["tiles"]
    if report.get(PLAN) != journal.plan:
        try:
            keys = _unchanged(out, records, wanted, "--overwrite without --retry_rejected")
        except InputError:
            if not journal.is_foreign:
                journal.remove()  # it is a new one
            raise
        records = _made(records, keys)
    journal.start_from([CLAIMED, *records], on_disk=1 + len(records))
    os.rename(out, staging)


def take_over(staging: Path, journal: Journal, wanted: Wanted) -> None:
    """Make an unfinished run of another plan one of this plan; do nothing if it is one.

    Tiles whose entries have changed, and all that were not made, are as if nothing had been done.

    Args:
        staging: the archive.
        journal: of the unfinished run.
        wanted: what this run shall make.

    Raises:
        InputError: it cannot become one of this plan.
    """
    if not journal.is_foreign:
        return
    if not staging.exists():  # it had only begun
        journal.start_from([], on_disk=0)
        return
    keys = _unchanged(staging, journal.records, wanted, "--restart")
    safe = _made(journal.records[: journal.on_disk], keys)
    others = _made(journal.records[journal.on_disk :], keys)
    if CLAIMED in journal.records:
        safe.insert(0, CLAIMED)
    journal.start_from([*safe, *others], on_disk=len(safe))


def _unchanged(archive: Path, records: list[dict], wanted: Wanted, option: str) -> set[str]:
    """The keys of an archive's tiles that another plan would make as they are.

    Args:
        archive: finished or not.
        records: of its tiles, in order.
        wanted: what the other plan makes.
        option: of the command, to make all tiles again.

    Raises:
        InputError: all tiles share something that has changed, it is not known what they were made
            of, or some of them are not wanted any more; or all of them have changed. None is
            deleted for such reasons, which a mistake in the manifest may have.
    """
    if not is_made_for(archive, wanted.sensors):
        raise InputError(
            f"{archive}: was made with other sensors or classes, or another format version, which "
            f"all tiles share; pass {option} to make all of them again"
        )
    last = {fields["key"]: fields for fields in records if "key" in fields}
    entries = {entry.key: entry for entry in wanted.entries}
    unchanged = set()
    changed = 0
    gone = []
    for key, fields in last.items():
        if "digest" not in fields:  # it was not made
            continue
        if not fields.get("entry"):
            raise InputError(
                f"{archive}: was made with another manifest or tile list by an earlier version, "
                "which did not record what each tile is made of; run it with that manifest and "
                f"--retry_rejected first, or pass {option} to make all tiles again"
            )
        if key not in entries:
            gone.append(key)
        elif fingerprint(entries[key]) == fields["entry"]:
            unchanged.add(key)
        else:
            changed += 1
    if gone:
        raise InputError(
            f"{archive}: has {len(gone)} tiles that the manifest does not name any more: "
            f"{first_of(gone)}; put their lines back, or pass {option} to make an archive without "
            "them"
        )
    if changed and not unchanged:
        raise InputError(
            f"{archive}: all of its {changed} tiles have changed in the manifest, so none could "
            f"stay; pass {option} to make all of them again"
        )
    return unchanged


def _made(records: list[dict], keys: set[str]) -> list[dict]:
    """The records of some tiles that were made."""
    return [fields for fields in records if "digest" in fields and fields["key"] in keys]


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
    staging: Path, journal: Journal, wanted: Wanted, *, retry_rejected: bool
) -> EarlierWork:
    """Read the journal, and leave just the tiles that it tells of in ``staging``.

    Args:
        staging: the archive.
        journal: what was done.
        wanted: what shall be made. Other tiles, of a scene whose file has changed, go.
        retry_rejected: forget the tiles that were rejected.
    """
    check_archive(staging)
    entries = {entry.key: entry for entry in wanted.entries}
    with os.scandir(staging / "tiles") as items:
        present = {item.name for item in items if item.is_dir()}
    earlier = EarlierWork({}, {})
    for number, fields in enumerate(journal.records):
        if fields.get("key") not in entries:
            continue
        record = from_json(fields)
        if isinstance(record, MadeTile) and not record.entry:  # by an earlier version
            record = replace(record, entry=fingerprint(entries[record.key]))
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
