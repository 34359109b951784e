"""Leaving in good order: signal or stop file -> flag -> vote over ranks -> last checkpoint -> exit
code.

SLURM sends SIGUSR1 before the time limit (``--signal=USR1@120``) and SIGTERM at preemption. A file
``STOP`` in the run folder does the same by hand, where no signal reaches the ranks (the deepspeed
launcher passes none on).
"""

import signal
from pathlib import Path

import torch

from models.reducer import Reducer

EXIT_DONE = 0  # all steps made, or stopped by the stop file: nothing to requeue
EXIT_REQUEUE = 75  # EX_TEMPFAIL: saved after a signal, the same command with --resume continues
STOP_FILE = "STOP"

_NONE, _FILE, _SIGNAL = 0, 1, 2


class Preempt:
    """Collects requests to stop; the ranks agree on them by vote.

    Args:
        run_dir: where the stop file would be.
        rank: only rank 0 looks for the file, so that a shared disk is asked once a step.
        signals: what to listen to. The handlers only set a flag: the step in progress ends first.
    """

    def __init__(self, run_dir: str, rank: int = 0, signals=(signal.SIGTERM, signal.SIGUSR1)):
        self.file = Path(run_dir) / STOP_FILE if rank == 0 else None
        self.signalled = False
        self.before = {number: signal.signal(number, self._receive) for number in signals}

    def _receive(self, number, frame) -> None:
        self.signalled = True

    def vote(self, reducer: Reducer, device: torch.device | str = "cpu") -> int | None:
        """Asks all ranks whether to stop; every rank calls it at every step and gets the same
        answer.

        Returns:
            None to go on, otherwise the exit code to leave with after the checkpoint.
        """
        mine = (
            _SIGNAL
            if self.signalled
            else _FILE
            if self.file is not None and self.file.exists()
            else _NONE
        )
        agreed = int(reducer.max(torch.tensor(float(mine), device=device)).item())
        return {_NONE: None, _FILE: EXIT_DONE, _SIGNAL: EXIT_REQUEUE}[agreed]

    def close(self) -> None:
        """Gives the signals back and takes the stop file away, so that the next start does not stop
        at once."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.file is not None:
            self.file.unlink(missing_ok=True)
