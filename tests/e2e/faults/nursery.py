"""Starts ranks as srun does, each as a fork of a process that has imported everything already.

Imports take most of the time of a short run. A rank is a process of its own all the same, with its
own signals, and executes what ``launch/pretrain.py`` does from its first line on.

Runs as ``python -m tests.e2e.faults.nursery``: a line of JSON in asks for something, and a line of
JSON out answers.
"""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from engine.resilience.progress import PROGRESS, START
from launch import cli, pretrain
from tests.commands import environment
from tests.dist import processes
from tests.e2e.faults import spoil
from tests.e2e.runs import Training, log_of
from tests.paths import ROOT

SMALL = Path(__file__).with_name("small.json")  # the smallest run that has every mechanism
GRACE = 10.0  # seconds that ranks have when another has failed; srun --wait
_MODULES = (
    "torch.utils.tensorboard",
    "engine.doctor.report",
    "engine.training.trainer",
    "launch.pretrain",
)


@dataclass(frozen=True)
class Order:
    """Ranks to be started.

    Attributes:
        world: number of ranks.
        words: of each rank's command line.
        run_dir: run folder.
        others: rank -> further words, for this rank alone.
    """

    world: int
    words: list[str]
    run_dir: str
    others: dict[str, list[str]] = field(default_factory=dict)


def start_words(run_dir: Path, shards: Path) -> list[str]:
    """The command line of the small run."""
    words = ["--deepspeed_config", str(SMALL), "--run_dir", str(run_dir)]
    return [*words, "--set", f"skysense.data.shards={shards}"]


class Nursery:
    """The side of the tests."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.faults.nursery"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which end what they started
        )

    def start(self, order: Order) -> "Ranks":
        """Start some ranks."""
        run_dir = Path(order.run_dir)
        log, log_begin = log_of(run_dir)
        pid = self.ask({"start": asdict(order)})
        return Ranks(Leader(self, pid), run_dir, log, log_begin)

    def ask(self, question: dict[str, Any]) -> Any:
        """One line in, one line out."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the nursery, which has no children left."""
        self.process.communicate()


class Leader:
    """The process above some ranks, which waits for them; used like a ``Popen``."""

    def __init__(self, nursery: Nursery, pid: int):
        self.nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = self.nursery.ask({"poll": self.pid})
        return self.returncode

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        while self.returncode is None:
            self.returncode = self.nursery.ask({"wait": self.pid})
        return self.returncode


class Ranks(Training):
    """A training without the ``deepspeed`` command."""

    def starter(self) -> int:
        """The leader."""
        return self.process.pid


def serve() -> None:
    """The nursery's side: import, and answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    _import_everything()
    for line in sys.stdin:
        [(name, value)] = json.loads(line).items()
        if name == "start":
            answer: int | None = _start(Order(**value))
        elif name == "poll":
            answer = _exit_code(value, os.WNOHANG)
        else:
            answer = _exit_code(value, 0)
        print(json.dumps(answer), file=answers, flush=True)


def _import_everything() -> None:
    """What a rank imports."""
    for module in _MODULES:
        importlib.import_module(module)


def _exit_code(pid: int, flags: int) -> int | None:
    found, status = os.waitpid(pid, flags)
    if found == 0:
        return None
    return os.waitstatus_to_exitcode(status)


def _start(order: Order) -> int:
    """Fork a leader, in a session of its own; its process number."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _lead(order)
    return pid


def _lead(order: Order) -> NoReturn:
    """Fork the ranks, wait for all, and leave with the first exit code that is not 0."""
    log = os.open(log_of(Path(order.run_dir))[0], os.O_WRONLY | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    port = processes.free_port()
    ranks = []
    for rank in range(order.world):
        pid = os.fork()
        if pid == 0:
            _be_rank(order, rank, port)
        ranks.append(pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # as slurmstepd: they are the ranks' business
    for code in _wait_for_all(ranks):
        if code > 0:
            os._exit(code)
        if code < 0:
            os._exit(128 - code)  # killed by a signal, as the shell counts it
    os._exit(0)


def _wait_for_all(ranks: list[int]) -> list[int]:
    """Exit codes of all ranks. Those that long outlive a failed one are killed, as by srun."""
    codes: dict[int, int] = {}
    end = math.inf
    while len(codes) < len(ranks):
        for pid in ranks:
            if pid in codes:
                continue
            code = _exit_code(pid, os.WNOHANG)
            if code is not None:
                codes[pid] = code
        if any(codes.values()):
            end = min(end, time.monotonic() + GRACE)
        if time.monotonic() > end:
            for pid in ranks:
                if pid not in codes:
                    os.kill(pid, signal.SIGKILL)
            end = math.inf
        time.sleep(0.02)
    return [codes[pid] for pid in ranks]


def _be_rank(order: Order, rank: int, port: int) -> NoReturn:
    """Run the training's script as one rank; the exit code is the process's."""
    os.environ.update(processes.environment(rank, order.world, port))
    sys.argv = ["launch/pretrain.py", *order.words, *order.others.get(str(rank), [])]
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    PROGRESS.enter(START)  # it has counted since the nursery imported it
    spoil.install(Path(order.run_dir), rank)
    code: Any = 1
    try:
        cli.run(pretrain.main)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
