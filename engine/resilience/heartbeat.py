"""Heartbeats: a small file a rank, which says every few seconds where the rank stands."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from data.files import write_whole
from engine.resilience.progress import Progress


@dataclass(frozen=True)
class Beat:
    """Where a rank stood when it wrote this."""

    rank: int
    host: str
    pid: int
    pids: str  # the space of process numbers: containers of one host have their own
    number: int  # of this beat, counted from 1
    step: int  # steps made
    phase: str
    entered: int  # phases so far
    seconds: float  # in the phase

    @classmethod
    def now(cls, progress: Progress, *, rank: int, number: int) -> Self:
        """Of this process."""
        return cls(
            rank=rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            pids=own_pids(),
            number=number,
            step=progress.step,
            phase=progress.phase,
            entered=progress.entered,
            seconds=time.monotonic() - progress.since,
        )

    @property
    def place(self) -> str:
        """Rank, host, step and phase, for messages."""
        return f"rank {self.rank} on {self.host}, after {self.step} steps, {self.phase}"


def own_pids() -> str:
    """Name of the space that this process's number belongs to."""
    return os.readlink("/proc/self/ns/pid")


def beat_file(folder: Path, rank: int) -> Path:
    """The file of a rank's heartbeats."""
    return folder / f"rank-{rank:05d}.json"


def write_beat(folder: Path, beat: Beat) -> None:
    """Replace the rank's last beat."""
    write_whole(beat_file(folder, beat.rank), json.dumps(asdict(beat)))


def read_beat(folder: Path, rank: int) -> Beat | None:
    """A rank's last beat; None before its first one."""
    file = beat_file(folder, rank)
    if not file.exists():
        return None
    return Beat(**json.loads(file.read_text()))
