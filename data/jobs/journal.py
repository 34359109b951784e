"""What a long run has done so far: a file of JSON lines beside the result, and the run's lock.

The first line is the plan, a hash of everything that decides the result. Each further line records
one thing that is whole. A killed run leaves the file, and the next run with the same plan continues
from it. A run with another plan may take over records that are as good under its own.

A power cut may take what the system has not yet written to the disk. So everything is forced there
every few seconds, in the background, and a line of the journal says up to which record. Later
records must be checked before they are believed.
"""

import ctypes
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError

PATIENCE = 5.0  # seconds to wait for the lock: workers of a killed run finish what they are making
STRAGGLING = 60.0  # seconds to wait for workers at the end
SYNC = 5.0  # seconds between the end of one forcing to the disk and the next
CLAIMED = {"claimed": True}  # first record of a run: what lies where it writes is its own from here
ON_DISK = "on_disk"  # key of the lines that say how many records are safe
NEW = ".new"  # ends the name of a file that will replace a journal


class Journal:
    """A locked journal. Use it as a context manager; ``remove`` it when all is done.

    Attributes:
        plan: hash of everything that decides the result.
        records: what an earlier run with this plan recorded, in order.
        on_disk: how many of these records are on the disk, with the things that they describe.
        is_foreign: the records are of another plan; ``start_from`` must come before anything else.
    """

    def __init__(
        self, path: Path, plan: str, *, restart: bool = False, of_any_plan: bool = False
    ) -> None:
        """Open or create the journal.

        Args:
            path: the file.
            plan: hash of everything that decides the result.
            restart: forget an earlier run, whatever its plan.
            of_any_plan: read an earlier run of another plan too, see ``is_foreign``.

        Raises:
            InputError: another process holds it, it belongs to another plan and neither option is
                given, or the disk refuses.
        """
        self.path = path
        self.plan = plan
        self.records: list[dict] = []
        self.on_disk = 0
        self.is_foreign = False
        self._header = _line({"journal": 1, "plan": plan})
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _locked(path, fcntl.LOCK_EX, PATIENCE)
        self._replaced: list[int] = []  # files that had the path before, still locked
        try:
            self._read(restart=restart, of_any_plan=of_any_plan)
            # Shared from now on with the workers (see ``Lease``), still closed to other runs. Those
            # of another plan must not work any more.
            if not self.is_foreign:
                fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._file)
            raise
        self._count = len(self.records)
        self._last_forced = time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._forcing: Future[int] | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown()
        for file in (*self._replaced, self._file):
            os.close(file)

    @property
    def lease(self) -> "Lease":
        """The workers' share of the lock."""
        return Lease(self.path, self._header)

    def append(self, record: dict) -> None:
        """Record something that is whole. A killed process loses no record.

        Raises:
            InputError: the disk refuses.
        """
        self._write(record)
        self._count += 1
        if self._forcing is None:
            if time.monotonic() - self._last_forced > SYNC:
                self._forcing = self._thread.submit(self._force)
        elif self._forcing.done():
            self._write({ON_DISK: self._forcing.result()})
            self._forcing = None
            self._last_forced = time.monotonic()

    def force(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            InputError: the disk refuses.
        """
        if self._forcing is not None:
            self._forcing.result()
            self._forcing = None
        self._write({ON_DISK: self._force()})

    def shut_out_workers(self) -> None:
        """Take the lock for this process alone: whoever still works on a task has finished it.

        Raises:
            InputError: a worker does not finish.
        """
        end = time.monotonic() + STRAGGLING
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                fcntl.flock(self._file, fcntl.LOCK_SH)  # the failed call has given it up
            if time.monotonic() > end:
                raise InputError(
                    f"{self.path}: all is done, but a worker that had lost its connection is still "
                    f"at work; stop it and start the same command again"
                )
            time.sleep(0.1)

    def clear(self) -> None:
        """Forget all records."""
        self.records = []
        self.on_disk = 0
        self._count = 0
        with _disk_errors(self.path):
            os.ftruncate(self._file, 0)
            os.write(self._file, self._header)
            os.fsync(self._file)

    def start_from(self, records: list[dict], *, on_disk: int) -> None:
        """Forget all records, and take others for those of an earlier run with this plan.

        The file is replaced at once: after a kill it is the old one or the new one. The lock on the
        old one stays until the end of the ``with`` block.

        Args:
            records: of things that are whole.
            on_disk: how many of them, from the first, are on the disk with what they describe.

        Raises:
            InputError: the disk refuses.
        """
        lines = [self._header]
        lines += map(_line, records[:on_disk])
        lines.append(_line({ON_DISK: on_disk}))
        lines += map(_line, records[on_disk:])
        new = self._new_path
        with _disk_errors(new):
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
            self._replaced.append(self._file)
            self._file = file
            for line in lines:
                os.write(file, line)
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.fsync(file)
            os.replace(new, self.path)
        self.is_foreign = False
        self.records = records
        self.on_disk = on_disk
        self._count = len(records)
        self._force()  # and so the file's new name

    def remove(self) -> None:
        """Delete the file. The lock stays until the end of the ``with`` block."""
        self._new_path.unlink(missing_ok=True)
        self.path.unlink()

    @property
    def _new_path(self) -> Path:
        """Where the file lies that ``start_from`` writes; a kill there leaves it."""
        return self.path.with_name(self.path.name + NEW)

    def _force(self) -> int:
        """Force the journal's whole file system to the disk; the number of records that covers."""
        covered = self._count
        # syncfs(2) writes this file system alone; os.sync would wait for all other disks too
        libc = ctypes.CDLL(None, use_errno=True)
        with _disk_errors(self.path):
            if libc.syncfs(self._file) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        return covered

    def _write(self, record: dict) -> None:
        with _disk_errors(self.path):
            os.write(self._file, _line(record))

    def _read(self, *, restart: bool, of_any_plan: bool) -> None:
        """Load the records; cut off what a kill or a power cut left behind the last whole line."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        if restart or not lines or not lines[0].endswith(b"\n"):
            self.clear()
            return
        self.is_foreign = lines[0] != self._header
        if self.is_foreign and not of_any_plan:
            raise InputError(
                f"{self.path}: an unfinished run with another plan (other input, options or "
                f"program version) is here; repeat its command, or pass --restart to throw its "
                f"work away"
            )
        whole = len(lines[0])
        for line in lines[1:]:
            record = _parsed(line)
            if record is None:
                break
            whole += len(line)
            if ON_DISK in record:
                self.on_disk = record[ON_DISK]
            else:
                self.records.append(record)
        os.ftruncate(self._file, whole)


@dataclass(frozen=True)
class Lease:
    """A worker's share of the lock of a journal.

    So no other run starts while a worker still writes, even if its main process was killed. A
    worker takes it for each task, because workers of a running cluster outlive the run.
    """

    path: Path
    header: bytes  # the first line, with the plan

    @contextmanager
    def held(self) -> Iterator[None]:
        """Share the lock.

        Raises:
            InputError: the journal is not there or is that of another run, or another run has the
                lock.
        """
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(
                f"{self.path}: a worker on {socket.gethostname()} cannot read it "
                f"({error.strerror}); all machines must see the same file system, and its run must "
                f"go on"
            ) from error
        try:
            _lock_or_refuse(file, self.path)
            if os.read(file, len(self.header)) != self.header:
                raise InputError(f"{self.path}: belongs to another run than the worker's task")
            yield
        finally:
            os.close(file)


def _lock_or_refuse(file: int, path: Path) -> None:
    """Take a shared lock at once.

    Raises:
        InputError: another run has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(
            f"{path}: another run, or the last worker of one, is at work here; wait for it or stop "
            f"it"
        ) from error


def _locked(path: Path, kind: int, patience: float) -> int:
    """The file at ``path``, open to read and append, with a lock of ``kind``.

    Args:
        patience: seconds to wait for another process that holds it.
    """
    end = time.monotonic() + patience
    while True:
        with _disk_errors(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            # A holder that has finished removes the file: then the lock is on a file without name.
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(file)
                raise InputError(
                    f"{path}: another run, or the last worker of one, is at work here; "
                    f"wait for it or stop it"
                ) from None
            time.sleep(0.1)
        except OSError as error:
            os.close(file)
            raise InputError(
                f"{path}: cannot be locked ({error}); choose a place on another file system"
            ) from error
        os.close(file)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """An error of the disk as an InputError that names the journal."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); put that right and start the same "
            f"command again"
        ) from error


def _line(record: dict) -> bytes:
    """A record as it stands in the file."""
    return json.dumps(record).encode() + b"\n"


def _parsed(line: bytes) -> dict | None:
    """The record of a line; None for a line that is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None
