"""Run a function or a script in several real gloo processes on this machine and collect what they
return.

``run_processes(2, "tests.dist.test_x:worker", args)`` calls ``worker(*args)`` in every process and
returns the results in rank order. ``run_processes(2, "launch/pretrain.py", args)`` (or a module
name) runs a script and returns what each printed.
"""

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from engine.distributed import zero
from tests.paths import PATIENCE, ROOT


class ProcessesFailed(RuntimeError):
    """A process failed or the time ran out; the message ends with the error output of the first
    that failed."""


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """Variables of one process that torch and DeepSpeed read: on the CPU, with one thread."""
    ours = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": 1,
        "PYTHONUNBUFFERED": 1,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.getenv('PYTHONPATH', '')}",
    }
    return {**os.environ, **{key: str(value) for key, value in ours.items()}}


def run_processes(world: int, target: str, args: Sequence = (), timeout: float = PATIENCE) -> list:
    """Run ``target`` in ``world`` processes; results by rank.

    ``target`` is "module:function" (arguments and results travel by torch.save), a path that ends
    in .py, or a module (arguments as strings, the result is the standard output). Raises
    ProcessesFailed when a process fails or ``timeout`` seconds pass; no process is left behind.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = _command(target, args, Path(folder))
        processes = []
        try:
            for rank in range(world):
                with (
                    open(f"{folder}/{rank}.out", "wb") as out,
                    open(f"{folder}/{rank}.err", "wb") as err,
                ):
                    processes.append(
                        subprocess.Popen(
                            command,
                            cwd=ROOT,
                            env=environment(rank, world, port),
                            stdout=out,
                            stderr=err,
                            start_new_session=True,
                        )
                    )
            _wait(processes, Path(folder), target, time.monotonic() + timeout)
        finally:
            _kill(processes)
        if ":" in target:
            return [
                torch.load(f"{folder}/{rank}.result", weights_only=False) for rank in range(world)
            ]
        return [Path(f"{folder}/{rank}.out").read_text() for rank in range(world)]


def _command(target: str, args: Sequence, folder: Path) -> list[str]:
    """Command line of one process."""
    if ":" in target:
        torch.save(tuple(args), folder / "args")
        return [sys.executable, "-m", "tests.dist.processes", target, str(folder)]
    script = ["-m", target]
    if target.endswith(".py"):
        script = [target]
    return [sys.executable, *script, *map(str, args)]


def _wait(processes: list, folder: Path, target: str, deadline: float) -> None:
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


def _kill(processes: list) -> None:
    """End every process of ours that still runs, with its children."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
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
