"""A run's folder as all ranks of its job hold it."""

import os
import shutil
from pathlib import Path
from types import TracebackType

from engine.checkpoint import branches
from engine.distributed.collectives import on_first_rank
from engine.resilience.lease import Lease
from engine.training import metrics, rollback
from engine.training.rollback import Rollback


class RunFolder:
    """The right of this job to write into a run folder: rank 0 holds the lease for all ranks.

    A context: the folder is given back at its end.
    """

    def __init__(self, run_dir: str | os.PathLike):
        """Take the folder. Every rank must call it.

        Raises:
            RankError: Another job works in it; raised on all ranks.
        """
        self.lease: Lease | None = None
        self.began = False
        self.attempt: int = on_first_rank(lambda: self._take(Path(run_dir)))

    def _take(self, run_dir: Path) -> int:
        """On rank 0: take the lease; the number of the attempt."""
        self.lease = Lease(run_dir)
        return self.lease.attempt

    def begin(self, origin: Path | None, *, rollbacks: int) -> None:
        """From now on the job leaves something in the folder. Every rank must call it.

        Checkpoints of a branch that the run leaves step aside, and with them the metrics.

        Args:
            origin: The checkpoint that the run continues from; None for a new run.
            rollbacks: Number of those that led there.

        Raises:
            RankError: Rank 0 cannot write; raised on all ranks.
        """
        self.began = True
        on_first_rank(lambda: self._begin(origin, rollbacks))

    def _begin(self, origin: Path | None, rollbacks: int) -> None:
        if self.lease is None:
            return
        run_dir = self.lease.run_dir
        before = rollback.read(run_dir)
        led_there = [record for record in before if record.number <= rollbacks]
        if branches.off_line(run_dir, origin) or led_there != before:
            left = self._go_back(run_dir, origin, f"{self.attempt:08d}", led_there)
            print(
                f"the run goes back: {left}; --resume CHECKPOINT continues from there",
                flush=True,
            )
        self.lease.begin(origin)

    def roll_back(self, record: Rollback) -> None:
        """Write a rollback down, and let what lies behind its checkpoint step aside.

        Every rank must call it.

        Raises:
            RankError: Another job has taken the folder over, or rank 0 cannot write; raised on all
                ranks.
        """
        self.check()
        on_first_rank(lambda: self._roll_back(record))

    def _roll_back(self, record: Rollback) -> None:
        if self.lease is None:
            return
        run_dir = self.lease.run_dir
        records = [*rollback.read(run_dir), record]
        name = f"{self.attempt:08d}-{record.number}"
        left = self._go_back(run_dir, record.folder(run_dir), name, records)
        skipped = record.next_sample - record.first_sample
        print(
            f"rollback {record.number} after {record.step} steps, because {record.reason}: back to "
            f"{record.folder(run_dir)}, the {skipped} samples since then are skipped; {left}",
            flush=True,
        )

    def _go_back(
        self, run_dir: Path, origin: Path | None, name: str, rollbacks: list[Rollback]
    ) -> str:
        """Leave a branch, and say where it lies now.

        The rollbacks are written down before a checkpoint moves, so a start that finds the folder
        in between does not go on with one that was left.
        """
        left = branches.off_line(run_dir, origin)
        aside = branches.make_aside(run_dir, name)
        for file in (metrics.FILE, rollback.FILE):
            if (run_dir / file).exists():
                shutil.copy(run_dir / file, aside / file)
        if rollbacks != rollback.read(run_dir):
            rollback.write(run_dir, rollbacks)
        branches.move(left, aside)
        words = "the metrics"
        if left:
            words = f"{', '.join(folder.name for folder in left)} and {words}"
        return f"{words} now lie in {aside}"

    def check(self) -> None:
        """Ask, before something is published, whether the folder is still this job's.

        Every rank must call it.

        Raises:
            RankError: Another job has taken the folder over; raised on all ranks.
        """
        on_first_rank(self._check)

    def _check(self) -> None:
        if self.lease is not None:
            self.lease.check()

    @property
    def is_taken(self) -> bool:
        """Whether another job has taken the folder over, as far as this rank knows."""
        return self.lease is not None and self.lease.taken_by is not None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the folder back."""
        if self.lease is not None:
            self.lease.close(worked=self.began)
