"""Starts ``python WORDS`` as a fork of a process that has imported the project already.

Imports take most of the time of a short command. What is started is a process of its own all the
same: it has its own environment, folder, files and signals, executes the program from its first
line on, and ends as the interpreter ends.

Runs as ``python -m tests.nursery``: a line of JSON in asks for something, and a line of JSON out
answers.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.resilience.progress import PROGRESS
from tests.environment import environment
from tests.paths import ROOT

# What most commands import. None of them may start a thread, which a fork would lack.
_MODULES = (
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "distributed",
    "engine.doctor.report",
    "engine.profile.report",
    "engine.training.trainer",
    "open_clip",
    "tests.dist.small",
    "torch.utils.tensorboard",
)


@dataclass(frozen=True)
class Program:
    """What is to be started.

    Attributes:
        words: behind ``python``: ``-m``, a module and its arguments, or a script and its arguments.
        folder: working folder.
        variables: the whole environment.
        out: file that its standard output is appended to.
        err: the same of its standard error.
    """

    words: list[str]
    folder: str
    variables: dict[str, str]
    out: str
    err: str

    def run(self) -> None:
        """Execute the program in this process, which was forked for it."""
        self._settle()
        execute(self.words)

    def _settle(self) -> None:
        """Take up a session, files, a folder and an environment."""
        os.setsid()
        os.dup2(os.open(self.out, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), 1)
        os.dup2(os.open(self.err, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), 2)
        os.environ.clear()
        os.environ.update(self.variables)
        os.chdir(self.folder)
        tempfile.tempdir = None  # it follows the environment
        if "PYTHONUNBUFFERED" in self.variables:
            sys.stdout.reconfigure(write_through=True)
        PROGRESS.since = time.monotonic()  # it has counted since the nursery imported it


def execute(words: list[str]) -> None:
    """Do in this process what ``python WORDS`` does."""
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


class Process:
    """A program that was started; used like a ``Popen``."""

    def __init__(self, nursery: "Nursery", pid: int):
        self.nursery = nursery
        self.pid = pid
        self.returncode: int | None = None
        self._end = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None and self._has_ended(0):
            self._collect()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code."""
        if self.returncode is None:
            if not self._has_ended(timeout):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self._collect()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End it and all that it has started in its session."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)

    def _has_ended(self, timeout: float | None) -> bool:
        ended, _, _ = select.select([self._end], [], [], timeout)
        return bool(ended)

    def _collect(self) -> None:
        self.returncode = self.nursery.ask("collect", self.pid)
        os.close(self._end)


class Nursery:
    """The side of the tests."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which end what they started
        )
        self._lock = threading.Lock()

    def start(
        self,
        words: Sequence[object],
        *,
        out: Path,
        err: Path,
        folder: Path = ROOT,
        variables: Mapping[str, str] | None = None,
    ) -> Process:
        """Start ``python WORDS`` in a session of its own.

        Args:
            words: Behind ``python``.
            out: File that its standard output is appended to.
            err: The same of its standard error; it may be the same file.
            folder: Working folder.
            variables: The whole environment, if it is not that of the tests.
        """
        program = Program(
            words=[str(word) for word in words],
            folder=str(folder),
            variables=dict(variables or environment()),
            out=str(out),
            err=str(err),
        )
        return Process(self, self.ask("start", asdict(program)))

    def ask(self, question: str, about: Any) -> int:
        """One line in, one line out."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with self._lock:
            self.process.stdin.write(json.dumps([question, about]) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the nursery."""
        self.process.communicate()


@functools.cache
def nursery() -> Nursery:
    """The one of this process."""
    only = Nursery()
    atexit.register(only.close)
    return only


def run(
    words: Sequence[object], *, folder: Path = ROOT, timeout: float
) -> subprocess.CompletedProcess:
    """Run ``python WORDS`` and wait for its end, as ``subprocess.run`` does.

    Args:
        words: Behind ``python``.
        folder: Working folder.
        timeout: Seconds; TimeoutExpired is raised afterwards.
    """
    with tempfile.TemporaryDirectory() as said:
        out = Path(said, "out")
        err = Path(said, "err")
        process = nursery().start(words, out=out, err=err, folder=folder)
        try:
            process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(
            words, process.returncode, out.read_text(), err.read_text()
        )


def _serve() -> Program | None:
    """Answer until the input ends. In a process that was forked: the program that it is for."""
    questions = os.fdopen(os.dup(0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what imports print is no answer
    _import_all()
    for line in questions:
        question, about = json.loads(line)
        if question == "start":
            answer = os.fork()
            if answer == 0:
                questions.close()
                answers.close()
                return Program(**about)
        else:
            _, status = os.waitpid(about, 0)
            answer = os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), file=answers, flush=True)
    return None


def _import_all() -> None:
    """Import what programs need, and make sure that a fork has all of this process."""
    for module in _MODULES:
        importlib.import_module(module)
    gc.freeze()  # a fork that collects garbage need not copy what is here
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"an import has started threads: {threads}"


if __name__ == "__main__":
    forked_for = _serve()
    # Here, with nothing of the nursery above it, so that it ends as any program does.
    if forked_for is not None:
        forked_for.run()
