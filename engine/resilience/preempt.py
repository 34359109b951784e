"""Leaving in good order: signal or stop file -> flag -> vote over ranks -> last checkpoint.

SLURM sends SIGUSR1 before the time limit (``--signal=USR1@120``) and SIGTERM at preemption. A file
``STOP`` in the run folder does the same by hand.
"""

import enum
from pathlib import Path

import torch

from engine.resilience.signals import Signals
from models.reducer import Reducer

STOP_FILE = "STOP"


class Request(enum.IntEnum):
    """What asks the run to stop. Where ranks differ, the largest counts."""

    NONE = 0
    STOP_FILE = 1
    SIGNAL = 2
    TAKEN = 3  # another job has taken the run folder over


class Preempt:
    """Collects requests to stop; the ranks agree on them by vote."""

    def __init__(self, run_dir: str | Path, signals: Signals, rank: int = 0):
        """Take what is asked.

        Args:
            run_dir: The folder that the stop file would be in.
            signals: Of this process.
            rank: Only rank 0 looks for the file, so that a shared disk is asked once a step.
        """
        self.file: Path | None = None
        if rank == 0:
            self.file = Path(run_dir) / STOP_FILE
        self.signals = signals

    def vote(
        self, reducer: Reducer, device: torch.device | str = "cpu", *, taken: bool = False
    ) -> Request:
        """Ask all ranks whether to stop.

        Every rank calls it at every step and gets the same answer.

        Args:
            reducer: Over all ranks.
            device: This rank's.
            taken: Whether this rank knows that another job has taken the run folder over.
        """
        request = self._own_request()
        if taken:
            request = Request.TAKEN
        own = torch.tensor(float(request), device=device)
        return Request(int(reducer.max(own).item()))

    def _own_request(self) -> Request:
        if self.signals.asked:
            return Request.SIGNAL
        if self.file is not None and self.file.is_file():
            return Request.STOP_FILE
        return Request.NONE

    def close(self) -> None:
        """Delete the stop file. Otherwise the next start would stop at once."""
        if self.file is not None and self.file.is_file():
            self.file.unlink()
