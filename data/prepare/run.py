"""A whole preparation run: tiles made by many processes, published with one rename.

What is done stands on the disk alone. A tile is whole once it is in ``<out>.partial``, and the
journal ``<out>.partial.jsonl`` has one line for each tile that is made or rejected. So a run can be
killed at any moment, and the next one goes on; the archive that comes out has the same bytes.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.errors import InputError
from data.files import publish_folder
from data.hashing import content_hash
from data.jobs.journal import CLAIMED, Journal
from data.jobs.places import Place
from data.jobs.progress import Progress
from data.jobs.tasks import Died, on_workers
from data.prepare.earlier import (
    Wanted,
    check_plan,
    earlier_work,
    reopen,
    take_over,
    tasks_of,
)
from data.prepare.fingerprint import fingerprint
from data.prepare.groups import News, groups_json, groups_of
from data.prepare.make import Bug, BugError, Task, make_tile
from data.prepare.manifest.expand import Tiles, expanded
from data.prepare.manifest.read import read_manifest
from data.prepare.record import (
    PLAN,
    REPORT,
    MadeTile,
    RejectedTile,
    TileRecord,
    first_of,
    to_json,
)
from data.tiles.archive import (
    FORMAT,
    VERSION,
    check_writable,
    create_archive,
    discard_partial_tiles,
    discard_tile,
)
from data.tiles.classes import class_table
from data.tiles.definitions import Definition, read_sensors, sensors_of
from data.tiles.modalities import MODALITIES

REPORT_HASH = "report_hash"  # key of the journal's last record: only the rename is left to do

Say = Callable[[str], None]


def prepare(
    manifest: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    tiles: str | Path | None = None,
    sensors: str | Path | None = None,
    workers: int | None = None,
    place: Place = None,
    restart: bool = False,
    retry_rejected: bool = False,
    max_rejected: int | None = None,
    say: Say = print,
) -> dict:
    """Make the archive ``out``; what is made before an error stays for the next run.

    Args:
        manifest: which sources make which tile.
        out: folder of the archive.
        overwrite: replace an archive at ``out``, once the new one is whole.
        tiles: list of tiles, for a manifest that needs one (see ``read_manifest``).
        sensors: file that describes sensors beside the built-in ones (see ``read_sensors``).
        workers: processes; None leaves it to the place, 0 is to work in this process.
        place: where the processes are; None for this machine, with one a core.
        restart: throw away what an unfinished run has made, which is continued otherwise.
        retry_rejected: try tiles again that an unfinished run has rejected, or a finished one; also
            of another manifest, and then those too whose entries have changed.
        max_rejected: stop when more tiles than this are rejected; None for no limit.
        say: takes lines of progress, and one for each rejected tile.

    Returns:
        The report, which is also report.json in the archive.

    Raises:
        InputError: the manifest, the sensors or ``out`` are wrong, an unfinished run of others is
            there, or more than ``max_rejected`` tiles or all are rejected.
        BugError: this program failed at a tile.
    """
    out = Path(out)
    staging = _beside(out, ".partial")
    journal_path = _beside(staging, ".jsonl")
    check_writable(out, overwrite=overwrite or retry_rejected or journal_path.exists())
    wanted = _wanted(manifest, tiles, sensors)
    with Journal(journal_path, wanted.plan, restart=restart, of_any_plan=True) as journal:
        check_plan(journal, retry_rejected=retry_rejected)
        if not _is_published(out, staging, journal):
            if retry_rejected and not restart:
                reopen(out, staging, journal, wanted)
            check_writable(out, overwrite=overwrite)
            _claim(staging, journal, wanted, restart=restart)
            earlier = earlier_work(staging, journal, wanted, retry_rejected=retry_rejected)
            if earlier.records or earlier.doubtful:
                say(f"{staging}: {earlier.of(len(wanted.entries))}")
            run = _Run(staging, journal, earlier.records, max_rejected=max_rejected, say=say)
            run.make(tasks_of(wanted.entries, earlier), workers=workers, place=place)
            run.finish(wanted.tiles)
            publish_folder(staging, out, aside=_replaced(staging))
            journal.force()  # the new name, before the journal goes
        _tidy(staging, journal)
    return json.loads((out / REPORT).read_bytes())


def _beside(out: Path, suffix: str) -> Path:
    """A path in the same folder, so that one rename moves it to ``out``."""
    return out.with_name(out.name + suffix)


def _replaced(staging: Path) -> Path:
    """Where an old archive waits until the new one is in its place."""
    return _beside(staging, ".old")


def _tidy(staging: Path, journal: Journal) -> None:
    """Remove what a published archive leaves behind: the one that it replaced, and the journal."""
    if _replaced(staging).exists():
        shutil.rmtree(_replaced(staging))
    journal.remove()


def _wanted(manifest: str | Path, tiles: str | Path | None, sensors: str | Path | None) -> Wanted:
    """What ``prepare`` is asked for. This process knows the sensors from then on."""
    described = _described(sensors)
    entries = read_manifest(manifest, tiles)
    return Wanted(_plan(manifest, tiles, sensors), expanded(entries, manifest), described)


def _described(path: str | Path | None) -> list[Definition]:
    """The sensors of a sensors file, which this process knows from then on."""
    if path is None:
        return []
    described = read_sensors(path)
    MODALITIES.add(sensors_of(described), str(path))
    return described


def _plan(*files: str | Path | None) -> str:
    """A hash of what decides the archive: the given files, the format and the classes."""
    hashes = [content_hash(Path(file).read_bytes()) for file in files if file is not None]
    return content_hash(json.dumps([FORMAT, VERSION, class_table(), hashes]).encode())


def _is_published(out: Path, staging: Path, journal: Journal) -> bool:
    """Whether the run was killed between the rename and the removal of its journal."""
    report = out / REPORT
    hashes = [record[REPORT_HASH] for record in journal.records if REPORT_HASH in record]
    if journal.is_foreign or not hashes or staging.exists() or not report.is_file():
        return False
    return content_hash(report.read_bytes()) == hashes[-1]


def _claim(staging: Path, journal: Journal, wanted: Wanted, *, restart: bool) -> None:
    """Make ``staging`` an archive of this run: an empty one, unless an earlier run goes on.

    Raises:
        InputError: ``staging`` holds files that no journal tells of, or those of a run of another
            plan that cannot go on.
    """
    take_over(staging, journal, wanted)
    if CLAIMED not in journal.records and staging.exists() and any(staging.iterdir()):
        try:
            _check_unclaimed(staging, journal, restart=restart)
        except InputError:
            journal.remove()  # it is a new one, and says nothing of what is there
            raise
    has_tiles = any("key" in record for record in journal.records)
    if staging.exists() and has_tiles:
        return
    journal.clear()
    journal.append(CLAIMED)
    if staging.exists():
        shutil.rmtree(staging)
    create_archive(staging, wanted.sensors)


def _check_unclaimed(staging: Path, journal: Journal, *, restart: bool) -> None:
    """Raise InputError unless a folder without its journal may be thrown away."""
    if not restart:
        raise InputError(
            f"{staging}: cannot be continued, its journal {journal.path.name} is not there; bring "
            f"it back, or pass --restart to throw {staging.name} away"
        )
    check_writable(staging, overwrite=True)


class _Run:
    """A run that fills an archive.

    Args:
        staging: where the archive is made.
        journal: where each tile is recorded.
        records: of the tiles that are done, by key.
        max_rejected: how many tiles may be rejected; None for no limit.
        say: takes lines of progress.
    """

    def __init__(
        self,
        staging: Path,
        journal: Journal,
        records: dict[str, TileRecord],
        *,
        max_rejected: int | None,
        say: Say,
    ) -> None:
        self._staging = staging
        self._journal = journal
        self._records = records
        self._rejected = [
            key for key, record in records.items() if isinstance(record, RejectedTile)
        ]
        self._max_rejected = max_rejected
        self._say = say

    def make(self, tasks: list[Task], *, workers: int | None, place: Place) -> None:
        """Make every tile that is still to be made.

        Raises:
            InputError: too many tiles are rejected, or the archive cannot be written.
            BugError: this program failed at a tile, whatever its files are.
        """
        progress = Progress(
            len(self._records) + len(tasks), done=len(self._records), unit="tiles", say=self._say
        )
        self._check_limit()
        news = News()
        results = on_workers(
            partial(make_tile, self._staging),
            tasks,
            workers=workers,
            place=place,
            lease=self._journal.lease,
        )
        with closing(results):
            for task, result in results:
                key = task.entry.key
                if isinstance(result, Died):
                    discard_tile(self._staging, key)
                    result = _died(key, result)
                if isinstance(result, Bug):
                    raise BugError(str(result))
                if isinstance(result, MadeTile):
                    result = replace(result, entry=fingerprint(task.entry))
                self._journal.append(to_json(result))
                self._records[key] = result
                is_rejected = isinstance(result, RejectedTile)
                notes = [f"  {key}: {note}" for note in result.notes]
                urgent = is_rejected or result.is_doubtful
                if urgent and not news.is_news(task.entry.whole):
                    urgent = False
                    notes = []
                progress.step(str(result), notes, urgent=urgent)
                if is_rejected:
                    self._rejected.append(key)
                    self._check_limit()

    def finish(self, wanted: Tiles) -> None:
        """Write the report and force everything to the disk.

        Args:
            wanted: all tiles, in the order of the manifest.

        Raises:
            InputError: no tile is usable, and nothing is left of the run then; or a worker is still
                at work.
        """
        self._journal.shut_out_workers()
        discard_partial_tiles(self._staging)
        made = []
        rejected = []
        for entry in wanted.entries:
            record = self._records[entry.key]
            if isinstance(record, MadeTile):
                made.append(record)
            elif isinstance(record, RejectedTile):
                rejected.append(record)
        groups = groups_of(wanted, self._records)
        for key, group in groups.items():
            self._say(f"{key}: {group}")
        if not made:
            shutil.rmtree(self._staging)
            self._journal.remove()
            raise InputError(_nothing_usable(rejected))
        report = f'{{"{PLAN}": "{self._journal.plan}", "tiles": {_one_a_line(made)}'
        report += f', "rejected": {_one_a_line(rejected)}'
        if groups:
            report += f', "groups": {json.dumps(groups_json(groups))}'
        report += "}\n"
        (self._staging / REPORT).write_text(report)
        self._journal.append({REPORT_HASH: content_hash(report.encode())})
        self._journal.force()

    def _check_limit(self) -> None:
        """Raise InputError when too many tiles are rejected."""
        rejected = self._rejected
        if self._max_rejected is None or len(rejected) <= self._max_rejected:
            return
        raise InputError(
            f"{len(rejected)} tiles rejected, --max_rejected allows {self._max_rejected}: "
            f"{first_of(rejected)}; correct their files or lines and continue with "
            "--retry_rejected, or allow more"
        )


def _nothing_usable(rejected: list[RejectedTile]) -> str:
    """Why a run ends without an archive."""
    if not rejected:
        return "no tile is usable: the sources have nothing over any of them"
    first = rejected[0]
    return (
        f"no tile is usable, {len(rejected)} rejected; the first one: {first.key}: "
        f"{first.notes[-1]}"
    )


def _died(key: str, death: Died) -> RejectedTile:
    """The record of a tile whose processes were ended."""
    note = (
        f"tile rejected: two processes that made it were ended{death}; a file that breaks its "
        "library, or too little memory"
    )
    return RejectedTile(key, [note])


def _one_a_line(records: list) -> str:
    """Records as a JSON list, one record a line."""
    lines = [json.dumps(to_json(record)) for record in records]
    return "[\n" + ",\n".join(lines) + "\n]"
