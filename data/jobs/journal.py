"""What a long run has done so far: a file of JSON lines beside what is being made, and the run's
lock.

The first line is the plan, a hash of everything that decides the result; each further line records
one thing that is whole. A killed run leaves the file, and the next one with the same plan goes on
from it. A power cut may take what the system has not written to the disk yet; therefore all is
forced there every few seconds, in the background, and a line says up to which record: what came
later has to be looked at before it is believed.
"""

import ctypes
import fcntl
import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from data.errors import InputError

PATIENCE = (
    5  # seconds to wait for the lock: workers of a killed run end with the thing they have in hand
)
SYNC = 5.0  # seconds between the end of one forcing to the disk and the next
CLAIMED = {
    "claimed": True
}  # first record of a run: from here on, what lies where it writes is its own
ON_DISK = "on_disk"  # key of the lines that say how many records are safe


class Journal:
    """The journal at ``path``, locked. Use as a context manager; ``remove`` it when all is done.

    Attributes:
        records: what an earlier run with this plan recorded, in order.
        on_disk: how many of these are safely on the disk, with what they tell of.
    """

    def __init__(self, path: Path, plan: str, restart: bool = False):
        """Raises InputError when another process holds it, or when it is of another plan and
        ``restart`` is false."""
        self.path = path
        self._header = json.dumps({"journal": 1, "plan": plan}).encode() + b"\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _locked(path, fcntl.LOCK_EX, PATIENCE)
        try:
            self._read(restart)
            # Shared from now on with the workers (see ``hold``), still closed to other runs.
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._file)
            raise
        self._count, self._last = len(self.records), time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._forcing: Future | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown()
        os.close(self._file)

    def append(self, record: dict) -> None:
        """Record something that is whole. A killed process loses no record."""
        self._write(record)
        self._count += 1
        if self._forcing and self._forcing.done():
            self._write({ON_DISK: self._forcing.result()})
            self._forcing, self._last = None, time.monotonic()
        elif not self._forcing and time.monotonic() - self._last > SYNC:
            self._forcing = self._thread.submit(self._force)

    def force(self) -> None:
        """Wait until everything is on the disk."""
        if self._forcing:
            self._forcing.result()
            self._forcing = None
        self._write({ON_DISK: self._force()})

    def clear(self) -> None:
        """Forget all records."""
        self.records, self.on_disk, self._count = [], 0, 0
        os.ftruncate(self._file, 0)
        os.write(self._file, self._header)
        os.fsync(self._file)

    def remove(self) -> None:
        """Delete the file; the lock stays until the end."""
        self.path.unlink()

    def _force(self) -> int:
        """Force the whole file system of the journal to the disk; returns how many records that
        covers."""
        covered = self._count
        libc = ctypes.CDLL(
            None, use_errno=True
        )  # syncfs(2): os.sync would wait for all other disks too
        if libc.syncfs(self._file):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(self.path))
        return covered

    def _write(self, line: dict) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def _read(self, restart: bool) -> None:
        """Load the records; cut off what a kill or a power cut left behind the last whole line."""
        lines = Path(self.path).read_bytes().splitlines(keepends=True)
        self.records, self.on_disk = [], 0
        if restart or not lines or not lines[0].endswith(b"\n"):
            return self.clear()
        if lines[0] != self._header:
            raise InputError(
                f"{self.path}: an unfinished run with another plan (other input, options or program "
                f"version) is here; repeat its command, or pass --restart to throw its work away"
            )
        whole = len(lines[0])
        for line in lines[1:]:
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            if ON_DISK in record:
                self.on_disk = record[ON_DISK]
            else:
                self.records.append(record)
            whole += len(line)
        os.ftruncate(self._file, whole)


def hold(path: Path) -> int:
    """Share the lock of a journal until this process ends: then no other run starts while a worker
    still writes, even if its main process was killed. Raises InputError when another run has it.
    Returns the open file."""
    return _locked(path, fcntl.LOCK_SH, 0)


def _locked(path: Path, kind: int, patience: float) -> int:
    """The file at ``path``, open to read and append, locked."""
    end = time.monotonic() + patience
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(
                os.fstat(file), path.stat()
            ):  # else its holder has removed it
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
