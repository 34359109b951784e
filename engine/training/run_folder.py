"""A run's folder as all ranks of its job hold it."""

import os
import shutil
from pathlib import Path
from types import TracebackType

from engine.checkpoint.branches import leave_branch
from engine.distributed.collectives import on_first_rank
from engine.resilience.lease import Lease
from engine.training.metrics import FILE


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

    def begin(self, origin: Path | None) -> None:
        """From now on the job leaves something in the folder. Every rank must call it.

        Checkpoints of a branch that the run leaves step aside, and with them the metrics.

        Args:
            origin: The checkpoint that the run continues from; None for a new run.

        Raises:
            RankError: Rank 0 cannot write; raised on all ranks.
        """
        self.began = True
        on_first_rank(lambda: self._begin(origin))

    def _begin(self, origin: Path | None) -> None:
        if self.lease is None:
            return
        run_dir = self.lease.run_dir
        aside = leave_branch(run_dir, origin, self.attempt)
        if aside is not None:
            left = sorted(folder.name for folder in aside.iterdir())
            if (run_dir / FILE).exists():
                shutil.copy(run_dir / FILE, aside / FILE)
            print(
                f"the run goes back: {', '.join(left)} and the metrics now lie in {aside}; "
                "--resume CHECKPOINT continues from there",
                flush=True,
            )
        self.lease.begin(origin)

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
