"""Who works in a run folder, and whether that process has surely ended."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

_ENDED = "ZX"  # states of a process that has ended and that its parent has not seen yet


@dataclass(frozen=True)
class Holder:
    """The first rank of a job that works in a run folder."""

    attempt: int  # counted from 1 in each run folder
    host: str
    process: int
    birth: str  # identifies the process among all that have or had its number on the host
    job: str | None  # SLURM's number
    since: str  # local time, for messages

    @classmethod
    def of_this_process(cls, attempt: int) -> "Holder":
        """This process as the holder of an attempt."""
        return cls(
            attempt=attempt,
            host=platform.node(),
            process=os.getpid(),
            birth=_birth(os.getpid()),
            job=os.environ.get("SLURM_JOB_ID"),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
        )

    def is_dead(self) -> bool:
        """Whether the process has surely ended, which only its own machine can tell."""
        own = _birth(os.getpid())
        here = self.host == platform.node() and _machine(self.birth) == _machine(own)
        return here and _birth(self.process) != self.birth

    def describe(self) -> str:
        """The holder in a message."""
        words = f"process {self.process} on {self.host} since {self.since}"
        if self.job is not None:
            words = f"SLURM job {self.job}, {words}"
        return f"attempt {self.attempt} ({words})"


def _birth(process: int) -> str:
    """The machine since its boot, the processes that are seen together, and the start of one."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.readlink("/proc/self/ns/pid")
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return f"{boot} {namespace} none"
    # The name in parentheses may hold blanks. Behind it come the state and, as the 20th word, the
    # start time.
    words = stat.rpartition(")")[2].split()
    if words[0] in _ENDED:
        return f"{boot} {namespace} none"
    return f"{boot} {namespace} {words[19]}"


def _machine(birth: str) -> str:
    """The part of a birth that all processes of a machine share."""
    return birth.rpartition(" ")[0]
