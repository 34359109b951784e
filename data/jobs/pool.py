"""Independent tasks in processes, so that what a C library does to one of them costs one task and
not the run.

``concurrent.futures`` breaks its whole pool when a process dies and does not say on which task; its
processes also outlive a main process that is killed. Here each process has a pipe of its own: a
dead one is known with its task, and a process whose main process is gone meets the end of the pipe
and leaves.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, resource_tracker
from typing import Any

from data.errors import InputError

# Spawned, not forked: GDAL and HDF5 hold locks and threads that do not survive a fork.
SPAWN = multiprocessing.get_context("spawn")
START_TRIES = 3
SIGNALS = {signal.SIGINT, signal.SIGTERM}  # the main process answers these, also for its workers
# One process a core, so one thread a process: else each starts a thread for every core. GDAL's
# default cache is 5 % of the memory in every process.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "GDAL_NUM_THREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
    "GDAL_CACHEMAX": "64",
}  # the last in MB


class WorkerError(RuntimeError):
    """A worker met an error that is no InputError, or could not start: a bug or a broken machine."""


@dataclass(frozen=True)
class Died:
    """In place of a result: the process that had the task ended, and so did the next one that tried
    it."""

    reason: str


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def in_processes(
    function: Callable[[Any], Any],
    tasks: Iterable,
    workers: int,
    setup: Callable[[], Any] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """(task, ``function(task)``) of every task, in the order in which they end; each worker has one
    task at a time.

    A task whose process dies is tried once more when all others are done, alone, so that memory
    that others filled is free again; if that process dies too, its result is a ``Died``. ``setup``
    is called once in each worker, which keeps its result while it lives. With 0 workers everything
    runs in this process. Close the iterator to end the workers early. Raises the InputError of a
    task as it is, any other error as WorkerError with its traceback."""
    if workers < 0:
        raise InputError(f"workers: expected 0 or more processes, found {workers}")
    if workers == 0:
        for task in tasks:
            yield task, function(task)
        return
    again: list[tuple[Any, str]] = []
    yield from _round(function, tasks, workers, setup, again)
    for task, _ in again:
        dead: list[tuple[Any, str]] = []
        yield from _round(function, [task], 1, setup, dead)
        for _, reason in dead:
            yield task, Died(reason)


def _round(function, tasks: Iterable, workers: int, setup, dead: list) -> Iterator[tuple[Any, Any]]:
    """One try at every task; (task, reason) of those whose process died goes to ``dead``."""
    tasks, pool, unready = (
        iter(tasks),
        {},
        0,
    )  # unready: workers that died while they started, in a row

    def start(task) -> None:
        worker = _Worker(function, setup, task)
        pool[worker.pipe] = worker

    try:
        for task in islice(tasks, workers):
            start(task)
        while pool:
            for pipe in connection.wait(list(pool)):
                worker = pool[pipe]
                try:
                    answer = pipe.recv()
                except (
                    EOFError,
                    OSError,
                ):  # the process is gone, perhaps in the middle of its answer
                    del pool[pipe]
                    reason = worker.end_of_it()
                    if worker.ready:
                        dead.append((worker.task, reason))
                        for task in islice(tasks, 1):
                            start(task)
                        continue
                    unready += 1
                    if unready == START_TRIES:
                        raise WorkerError(
                            f"{unready} worker processes one after the other ended while they started, "
                            f"the last one {reason}; try fewer workers"
                        ) from None
                    start(worker.task)
                    continue
                if answer is None:
                    worker.ready, unready = True, 0
                    continue
                done, worker.task = worker.task, None
                yield done, _result(answer)
                for task in islice(tasks, 1):
                    worker.give(task)
                if worker.task is None:
                    pool.pop(pipe).close()
    finally:
        for worker in pool.values():
            # SIGTERM is blocked there; what a worker published is whole at any moment
            worker.process.kill()
            worker.close()


class _Worker:
    """A process, its pipe and the task it has."""

    def __init__(self, function, setup, task):
        self.pipe, far = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(function, setup, far))
        self.ready, self.task = False, None
        with _for_workers():
            self.process.start()
        far.close()
        self.give(task)

    def give(self, task) -> None:
        """Send the next task."""
        self.task = task
        with suppress(BrokenPipeError):  # it died meanwhile: the end of the pipe will say so
            self.pipe.send(task)

    def end_of_it(self) -> str:
        """How the process ended."""
        self.close()
        code = self.process.exitcode
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

    def close(self) -> None:
        """Let the process end, and wait for it."""
        self.pipe.close()
        self.process.join()


def _serve(function, setup, pipe) -> None:
    """A worker's life: tasks in, answers out, until the pipe ends."""
    with suppress(BrokenPipeError, EOFError):  # the main process is gone, or has no more tasks
        try:
            _held = setup() if setup else None  # kept while the worker lives
        except InputError as error:
            pipe.send((error, None))
            return
        pipe.send(None)
        while True:
            task = pipe.recv()
            try:
                answer = (None, function(task))
            except InputError as error:
                answer = (error, None)
            except Exception:  # whatever it is, the main process raises it
                answer = (traceback.format_exc(), None)
            pipe.send(answer)


def _result(answer: tuple) -> Any:
    """Unpack an answer."""
    error, result = answer
    if isinstance(error, InputError):
        raise error
    if error is not None:
        raise WorkerError(f"a worker process failed:\n{error}")
    return result


@contextmanager
def _for_workers():
    """While a worker starts: its environment, and the signals blocked, which it inherits."""
    resource_tracker.ensure_running()  # else the first start launches it and unblocks them
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
