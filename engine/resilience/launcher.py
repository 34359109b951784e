"""The ``deepspeed`` command above a rank, which passes no signal on when it is killed.

Its first process starts a second one, and that one the ranks. Whichever of them goes, the ranks
would train on with nobody to stop them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_STARTER = b"deepspeed.launcher.launch"  # the module that starts the ranks of a machine


@dataclass(frozen=True)
class Launcher:
    """Process numbers of the two processes above a rank.

    Attributes:
        starter: the parent of this process.
        command: the parent of the starter.
    """

    starter: int
    command: int

    @classmethod
    def of_this_process(cls) -> "Launcher | None":
        """The ``deepspeed`` command that started this process; None if something else did."""
        starter = os.getppid()
        words = _read(starter, "cmdline").split(b"\0")
        if _STARTER not in words:
            return None
        return cls(starter, _parent(starter))

    def is_gone(self) -> bool:
        """Whether one of the two processes has ended.

        A process whose parent ends gets another parent.
        """
        return os.getppid() != self.starter or _parent(self.starter) != self.command


def _parent(pid: int) -> int:
    """Number of a process's parent; 0 if there is no such process."""
    # "pid (name) state parent ...": the name may hold blanks and parentheses
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if not fields:
        return 0
    return int(fields[1])


def _read(pid: int, file: str) -> bytes:
    """What the kernel says of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
