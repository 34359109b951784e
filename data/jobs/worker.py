"""A worker process of a command's own: ``python -m data.jobs.worker NAME MODULE``.

It is a Dask worker with one thread that is bound to the command by its standard input, a pipe. Its
first line is the scheduler's address: until it comes the libraries are imported, MODULE among them,
which holds the function of the tasks. When the command is gone, however it ended, the pipe ends,
and so does this process. It leaves no file: Dask's folder for data that do not fit into memory,
which is never used, is deleted at once.
"""

import asyncio
import importlib
import os
import sys
import tempfile
import threading
from typing import BinaryIO

import dask

# Dask's clocks that only its dashboard needs are slowed down, its profiler is off.
SETTINGS = {
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.diagnostics.nvml": False,
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "logging": {"distributed": "critical"},
}
GONE = 1  # exit status


def main(name: str, module: str) -> None:
    """Work for a scheduler until it or the command ends."""
    dask.config.set(SETTINGS)
    importlib.import_module("distributed")  # after the settings, which it reads when imported
    importlib.import_module(module)
    pipe = sys.stdin.buffer
    scheduler = pipe.readline().decode().strip()
    if not scheduler:
        sys.exit(GONE)
    threading.Thread(target=_leave_with_the_command, args=(pipe,), daemon=True).start()
    asyncio.run(_serve(scheduler, name))


def _leave_with_the_command(pipe: BinaryIO) -> None:
    """End this process at once, even in the middle of a task, when the pipe ends."""
    pipe.read()
    os._exit(GONE)


async def _serve(scheduler: str, name: str) -> None:
    """A Dask worker's life."""
    from distributed import Worker

    with tempfile.TemporaryDirectory(prefix="skysense-") as scratch:
        worker = Worker(
            scheduler,
            name=name,
            nthreads=1,
            memory_limit=0,  # none: the second try of a task that needs too much runs alone
            dashboard=False,
            local_directory=scratch,
        )
    async with worker:
        await worker.finished()


if __name__ == "__main__":
    main(*sys.argv[1:])
