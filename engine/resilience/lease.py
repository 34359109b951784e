"""One job a run folder: a lease that its holder renews, and that a later job can take over.

run folder/
    lease.json               who holds the folder, and a beat that the holder counts up
    attempts/00000001.json   who held it in this attempt, and the checkpoint that it continued from

It needs no lock of the file system and no clock that machines share, so it works on network file
systems. An attempt is a number: its file is created exclusively, so one job alone gets it. A job
that finds the beat standing still for ``LEASE`` seconds of its own clock takes the next number. The
old holder, if it wakes up, finds a higher number than its own and must not write any more.
"""

import json
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data.files import whole_file, write_whole
from engine.errors import ConfigError
from engine.resilience.holder import Holder

FILE = "lease.json"
ATTEMPTS = "attempts"
BEAT = 5.0  # seconds between two renewals
LEASE = 60.0  # seconds without one after which a job counts as gone
_WATCH = 0.5  # seconds between two looks at another job's lease


@dataclass(frozen=True)
class Record:
    """The content of a lease's file."""

    holder: Holder
    beat: int = 0
    ended: bool = False


@dataclass(frozen=True)
class Attempt:
    """The content of an attempt's file."""

    holder: Holder
    began: bool = False  # whether it came to its first step
    origin: str | None = None  # the checkpoint's folder that it continued from


class Lease:
    """The right of this process to write into a run folder."""

    def __init__(self, run_dir: Path, *, beat: float = BEAT, lease: float = LEASE):
        """Take the folder, which is made if there is none.

        Args:
            run_dir: Run folder.
            beat: Seconds between two renewals.
            lease: Seconds without one after which another job counts as gone.

        Raises:
            ConfigError: Another job holds the folder.
        """
        self.run_dir = run_dir
        self.made_folder = not run_dir.exists()
        (run_dir / ATTEMPTS).mkdir(parents=True, exist_ok=True)
        attempt = _next_attempt(run_dir, lease)
        self.record = Record(Holder.of_this_process(attempt))
        self.taken_by: Holder | None = None
        self._ended = threading.Event()
        self._renewing = threading.Lock()
        self._write(self.record)
        self._thread = threading.Thread(target=self._keep, args=(beat,), daemon=True)
        self._thread.start()

    @property
    def attempt(self) -> int:
        """The number of this attempt, higher than those of all jobs before."""
        return self.record.holder.attempt

    def check(self) -> None:
        """Renew the lease at once.

        Raises:
            ConfigError: Another job has taken the folder over; this one must not write any more.
        """
        self._renew()
        if self.taken_by is not None:
            raise ConfigError(
                f"{self.run_dir}: expected to hold this run folder as attempt {self.attempt}, "
                f"found {self.taken_by.describe()}, which took it over while this job stood still; "
                "this job ends without saving"
            )

    def begin(self, origin: Path | None) -> None:
        """Write down where this attempt begins to work.

        Args:
            origin: The checkpoint that it continues from; None for a new run.
        """
        words = None
        if origin is not None:
            words = str(origin.resolve())
        attempt = Attempt(self.record.holder, began=True, origin=words)
        write_whole(_attempt_file(self.run_dir, self.attempt), _json(attempt))

    def close(self, *, worked: bool) -> None:
        """Give the folder back, so that the next job starts at once.

        Args:
            worked: Whether the job left something in the folder. If not, a folder that it made for
                the lease goes again.
        """
        self._ended.set()
        self._thread.join()
        try:
            self._renew()
            if self.taken_by is not None:
                return
            self._write(replace(self.record, ended=True))
        except OSError as error:  # the job may end because the disk is full
            file = self.run_dir / FILE
            print(
                f"warning: {file}: cannot be given back ({error}); on another host the next job "
                f"waits for {LEASE:g} s",
                flush=True,
            )
            return
        if self.made_folder and not worked:
            self._remove()

    def _remove(self) -> None:
        """Delete what the lease has made, and the run folder if nothing else is in it."""
        _attempt_file(self.run_dir, self.attempt).unlink()
        (self.run_dir / FILE).unlink()
        (self.run_dir / ATTEMPTS).rmdir()
        if not any(self.run_dir.iterdir()):
            self.run_dir.rmdir()

    def _keep(self, beat: float) -> None:
        """Renew the lease until it ends; the body of the thread."""
        while not self._ended.wait(beat) and self.taken_by is None:
            try:
                self._renew()
            except OSError as error:  # the next one may succeed; if none does, others take over
                print(f"warning: {self.run_dir / FILE}: cannot be renewed ({error})", flush=True)

    def _renew(self) -> None:
        """Count the beat up, unless a later attempt holds the folder."""
        with self._renewing:
            found = read(self.run_dir)
            if found is not None and found.holder.attempt > self.attempt:
                self.taken_by = found.holder
                return
            self.record = replace(self.record, beat=self.record.beat + 1)
            self._write(self.record)

    def _write(self, record: Record) -> None:
        file = self.run_dir / FILE
        scratch = file.with_name(f".{FILE}.{record.holder.attempt}")
        with whole_file(file, scratch=scratch):
            scratch.write_text(_json(record))


def read(run_dir: Path) -> Record | None:
    """The lease of a run folder, None if nobody ever held it.

    Raises:
        ConfigError: The file holds something else.
    """
    try:
        content = _content(run_dir / FILE)
    except FileNotFoundError:
        return None
    return Record(**{**content, "holder": Holder(**content["holder"])})


def last_origin(run_dir: Path) -> Path | None:
    """The checkpoint that the last attempt which came to its first step continued from.

    Returns:
        None without such an attempt, or if it began a new run.

    Raises:
        ConfigError: A file of an attempt holds something else.
    """
    for file in sorted((run_dir / ATTEMPTS).glob("*.json"), reverse=True):
        content = _content(file)
        if content.get("began"):
            if content["origin"] is None:
                return None
            return Path(content["origin"])
    return None


def _content(file: Path) -> dict:
    """The object in a file. Raises ConfigError if it holds something else."""
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{file}: expected a file of this program, found something else; delete it when no job "
            "works in this folder"
        ) from error


def _json(content: Record | Attempt) -> str:
    return json.dumps(asdict(content), indent=2)


def _next_attempt(run_dir: Path, lease: float) -> int:
    """Create the file of the next attempt; its number. Raises ConfigError if a job holds it."""
    record = read(run_dir)
    number = 1
    if record is not None:
        _wait_until_gone(run_dir, record, lease)
        number = record.holder.attempt + 1
    while not _create(run_dir, number):
        _refuse_rival(run_dir, number, lease)
        number += 1
    return number


def _create(run_dir: Path, number: int) -> bool:
    """Create the file of an attempt; False if another job was faster, or died in between."""
    try:
        with open(_attempt_file(run_dir, number), "x", encoding="utf-8") as file:
            file.write(_json(Attempt(Holder.of_this_process(number))))
    except FileExistsError:
        return False
    return True


def _wait_until_gone(run_dir: Path, first: Record, lease: float) -> None:
    """Return when the holder has ended or stopped to renew. Raises ConfigError if it works on."""
    if first.ended or first.holder.is_dead():
        return
    print(
        f"{run_dir}: held by {first.holder.describe()}; waiting {lease:g} s for a sign of life",
        flush=True,
    )
    end = time.monotonic() + lease
    while time.monotonic() < end:
        time.sleep(_WATCH)
        now = read(run_dir)
        if now is None or now.ended:
            return
        if now != first:
            raise _in_use(run_dir, now.holder)


def _refuse_rival(run_dir: Path, number: int, lease: float) -> None:
    """Raise ConfigError if a job with this number takes the lease; return if none does."""
    end = time.monotonic() + lease
    while time.monotonic() < end:
        now = read(run_dir)
        if now is not None and now.holder.attempt >= number:
            raise _in_use(run_dir, now.holder)
        time.sleep(_WATCH)


def _in_use(run_dir: Path, holder: Holder) -> ConfigError:
    return ConfigError(
        f"{run_dir}: expected a run folder that no job works in, found {holder.describe()}; end "
        "that job first, or choose another --run_dir"
    )


def _attempt_file(run_dir: Path, number: int) -> Path:
    return run_dir / ATTEMPTS / f"{number:08d}.json"
