"""Real trainings that are hurt while they run, and their processes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.training.metrics import read
from tests.commands import TINY, launched, training_words
from tests.environment import environment
from tests.nursery import Process
from tests.paths import PATIENCE, ROOT


@dataclass
class Training:
    """A training that was started by the ``deepspeed`` command, in a session of its own."""

    process: subprocess.Popen | Process
    run_dir: Path
    log: Path
    log_begin: int = 0  # where this start's words begin in the log

    @property
    def said(self) -> str:
        """All that its processes have said."""
        return self.log.read_bytes()[self.log_begin :].decode()

    def steps(self) -> int:
        """Steps in its log."""
        return len(read(self.run_dir))

    def wait_for(
        self, condition: Callable[[], bool], seconds: float = PATIENCE, *, pause: float = 0.02
    ) -> None:
        """Wait until something holds that the run brings about, and look every ``pause`` s."""
        looked = time.monotonic()
        end = looked + seconds
        while not condition():
            # A look at all processes takes longer than the pause: only now and then.
            if time.monotonic() > looked + 1:
                looked = time.monotonic()
                assert looked < end and self.alive(), self.said[-6000:]
            time.sleep(pause)

    def wait_for_steps(self, number: int) -> None:
        """Wait until the run has made some steps."""
        self.wait_for(lambda: self.steps() >= number)

    def alive(self) -> list[int]:
        """Its processes, those of a rank that was left alone too. Ended ones are collected."""
        self.process.poll()
        return [pid for pid in _processes() if _session(pid) == self.process.pid]

    def ranks(self) -> list[int]:
        """Processes of the ranks, by rank."""
        starter = self.starter()
        return [pid for pid in self.alive() if _parent(pid) == starter]

    def starter(self) -> int:
        """The launcher's process that has started the ranks."""
        [pid] = [pid for pid in self.alive() if _parent(pid) == self.process.pid]
        return pid

    def loaders(self, rank: int) -> list[int]:
        """Processes that a rank has forked."""
        own = self.ranks()[rank]
        return [pid for pid in self.alive() if _parent(pid) == own]

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait until no process is left; returns the exit code of the command."""
        end = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < end, f"{self.alive()} still run\n{self.said[-6000:]}"
            time.sleep(0.05)
        return self.process.wait()

    def end(self) -> None:
        """Kill whatever is left."""
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def log_of(run_dir: Path) -> tuple[Path, int]:
    """The log of all starts of a run, and its size so far."""
    log = run_dir.with_suffix(".log")
    log.touch()
    return log, log.stat().st_size


def start(world: int, shards: Path, run_dir: Path, *arguments, config: Path = TINY) -> Training:
    """Start a training, of the tiny configuration if no other is given."""
    log, log_begin = log_of(run_dir)
    command = launched(world, training_words(shards, run_dir, *arguments, config=config))
    with open(log, "a") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return Training(process, run_dir, log, log_begin)


def _processes() -> list[int]:
    """All processes of this machine, by number."""
    return sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _fields(pid: int) -> list[str]:
    """State, parent, group and session of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _parent(pid: int) -> int | None:
    fields = _fields(pid)
    return int(fields[1]) if fields else None


def _session(pid: int) -> int | None:
    """The session of a process that has not ended."""
    fields = _fields(pid)
    return int(fields[3]) if fields and fields[0] != "Z" else None
