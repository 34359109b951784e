"""Run a function or a script in several real gloo processes on this machine and collect what they
return.

``run_processes(2, "tests.dist.test_x:worker", args)`` calls ``worker(*args)`` in every process and
returns the results in rank order. ``run_processes(2, "launch/pretrain.py", args)`` (or a module
name) runs a script and returns what each printed.
"""

import importlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from engine.distributed import zero
from tests.environment import environment
from tests.nursery import Process, nursery
from tests.paths import PATIENCE


class ProcessesFailed(RuntimeError):
    """A process failed or the time ran out; the message ends with the error output of the first
    that failed."""


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment_of(rank: int, world: int, port: int) -> dict[str, str]:
    """Variables of one process that torch and DeepSpeed read: on the CPU, with one thread."""
    ours = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "PYTHONUNBUFFERED": 1,
    }
    return environment() | {key: str(value) for key, value in ours.items()}


def run_processes(world: int, target: str, args: Sequence = (), timeout: float = PATIENCE) -> list:
    """Run ``target`` in ``world`` processes; results by rank.

    ``target`` is "module:function" (arguments and results travel by torch.save), a path that ends
    in .py, or a module (arguments as strings, the result is the standard output). Raises
    ProcessesFailed when a process fails or ``timeout`` seconds pass; no process is left behind.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = _words(target, args, folder)
        running = []
        try:
            for rank in range(world):
                process = nursery().start(
                    words,
                    variables=environment_of(rank, world, port),
                    out=folder / f"{rank}.out",
                    err=folder / f"{rank}.err",
                )
                running.append(process)
            _wait(running, folder, target, time.monotonic() + timeout)
        finally:
            _kill(running)
        if ":" in target:
            return [
                torch.load(folder / f"{rank}.result", weights_only=False) for rank in range(world)
            ]
        return [(folder / f"{rank}.out").read_text() for rank in range(world)]


def _words(target: str, args: Sequence, folder: Path) -> list[str]:
    """Command line of one process, behind ``python``."""
    if ":" in target:
        torch.save(tuple(args), folder / "args")
        return ["-m", "tests.dist.processes", target, str(folder)]
    script = ["-m", target]
    if target.endswith(".py"):
        script = [target]
    return [*script, *map(str, args)]


def _wait(processes: list[Process], folder: Path, target: str, deadline: float) -> None:
    """Wait until all have ended well."""
    running = dict(enumerate(processes))
    while running:
        for rank, process in list(running.items()):
            code = process.poll()
            if code:
                raise ProcessesFailed(
                    f"{target}: process {rank} of {len(processes)} ended with {code}\n"
                    f"{_tail(folder, rank)}"
                )
            if code == 0:
                del running[rank]
        if running and time.monotonic() > deadline:
            rank = min(running)
            raise ProcessesFailed(
                f"{target}: processes {sorted(running)} of {len(processes)} ran out of time; "
                f"process {rank} said\n{_tail(folder, rank)}"
            )
        time.sleep(0.02)


def _tail(folder: Path, rank: int) -> str:
    """End of what a process wrote on its error output."""
    return (folder / f"{rank}.err").read_text(errors="replace")[-6000:]


def _kill(processes: list[Process]) -> None:
    """End every process of ours that still runs, with its children."""
    for process in processes:
        process.kill()
        process.wait()


def _child(target: str, folder: str) -> None:
    """Inside a process: call the function and store its result."""
    module, function = target.split(":")
    args = torch.load(f"{folder}/args", weights_only=False)
    result = getattr(importlib.import_module(module), function)(*args)
    torch.save(result, f"{folder}/{os.environ['RANK']}.result")
    zero.shutdown()  # gloo's threads must end before the interpreter does


if __name__ == "__main__":
    _child(*sys.argv[1:])
