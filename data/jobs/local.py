"""Worker processes on this machine, which live and end with the command that starts them.

They are Dask workers without its nanny. A nanny's processes keep semaphores in ``/dev/shm``, which
stay there when command and workers are killed together, and do not say how they ended.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from data.errors import InputError
from data.jobs.surroundings import worker_environment

SIGNALS = {signal.SIGINT, signal.SIGTERM}  # the command answers these, also for its workers
MOST_STARTS = 3  # for each worker, without any sign of life


class LocalWorkers:
    """Some worker processes, each of which is replaced when it dies.

    Args:
        count: number of processes.
        module: what each imports while it starts.
    """

    def __init__(self, count: int, module: str):
        self._count = count
        self._failure = ""
        self._module = module
        self._scheduler = ""
        self._lock = threading.Lock()
        self._closed = False
        self._started = 0
        self._starts_left = MOST_STARTS * count
        self._most_starts = MOST_STARTS * count
        self._processes: dict[str, subprocess.Popen] = {}  # by the worker's name
        self._ends: dict[str, str] = {}  # name of a dead worker -> how it ended
        with signals_blocked():
            for _ in range(count):
                self._start()

    def connect(self, scheduler: str) -> None:
        """Let all workers work for a scheduler."""
        with self._lock:
            self._scheduler = scheduler
            for process in self._processes.values():
                self._tell(process)

    def grow(self, count: int) -> None:
        """Start more workers, up to ``count``."""
        with self._lock, signals_blocked():
            while self._count < count:
                self._count += 1
                self._most_starts += MOST_STARTS
                self._starts_left += MOST_STARTS
                self._start()

    def check(self) -> None:
        """Raise InputError if there are no workers any more."""
        if self._failure:
            raise InputError(self._failure)

    def are_alive(self) -> None:
        """Note a sign of life: earlier deaths do not count as failed starts any more."""
        self._starts_left = self._most_starts

    def how_it_ended(self, name: str) -> str:
        """``by SIGSEGV`` or ``with exit code 1``, of a worker that Dask has lost."""
        with self._lock:
            process = self._processes.get(name)
        if process is not None:
            return _in_words(process.wait())
        return self._ends[name]

    def close(self) -> None:
        """Kill all workers. It does no harm: what one has published is whole at any moment."""
        with self._lock:
            self._closed = True
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
            _close_pipe(process)

    def _start(self) -> None:
        """Start a worker, and a thread that waits for its end."""
        self._started += 1
        self._starts_left -= 1
        name = f"worker-{self._started}"
        process = subprocess.Popen(
            [sys.executable, "-m", "data.jobs.worker", name, self._module],
            stdin=subprocess.PIPE,
            env={**os.environ, **worker_environment()},
            process_group=0,  # who kills the command's group leaves the workers their last moment
        )
        self._processes[name] = process
        if self._scheduler:
            self._tell(process)
        threading.Thread(target=self._watch, args=(name, process), daemon=True).start()

    def _tell(self, process: subprocess.Popen) -> None:
        """Send a worker the scheduler's address."""
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has died: the thread that waits for it sees that
            process.stdin.write(f"{self._scheduler}\n".encode())
            process.stdin.flush()

    def _watch(self, name: str, process: subprocess.Popen) -> None:
        """Wait for the end of a worker and start another one."""
        status = process.wait()
        with self._lock:
            if self._closed:
                return
            del self._processes[name]
            _close_pipe(process)
            self._ends[name] = _in_words(status)
            if self._starts_left > 0:
                self._start()
            elif not self._processes:
                self._failure = (
                    f"{self._most_starts} worker processes one after the other ended without any "
                    f"work done, the last one {self._ends[name]}; try fewer workers"
                )


def _close_pipe(process: subprocess.Popen) -> None:
    """Close the command's end of the pipe of a worker that has ended."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _in_words(status: int) -> str:
    """What the exit status of a process means."""
    if status < 0:
        return f"by {signal.Signals(-status).name}"
    return f"with exit code {status}"


@contextmanager
def signals_blocked() -> Iterator[None]:
    """While processes and threads start: they inherit that the signals are blocked."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
