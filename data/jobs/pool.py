"""Independent tasks in processes, so that a crash of a C library costs one task and not the run.

``concurrent.futures`` breaks its whole pool when a process dies and does not say on which task. Its
processes also outlive a main process that is killed. Here each process has a pipe of its own. So
the task of a dead process is known, and a process whose main process is gone reads the end of its
pipe and leaves.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from data.errors import InputError

# Spawned, not forked: GDAL and HDF5 hold locks and threads that do not survive a fork.
SPAWN = multiprocessing.get_context("spawn")
START_TRIES = 3
SIGNALS = {signal.SIGINT, signal.SIGTERM}  # the main process answers these, also for its workers
# One process a core, so one thread a process: otherwise each starts a thread for every core.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "GDAL_NUM_THREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
    "GDAL_CACHEMAX": "64",  # MB; GDAL's default is 5 % of the memory in every process
}

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """A worker met a bug or could not start: an error that is no InputError."""


@dataclass(frozen=True)
class Died:
    """Stands in place of a result: two processes that tried the task ended before they answered."""

    reason: str


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def in_processes(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    setup: Callable[[], Any] | None = None,
) -> Generator[tuple[Task, Result | Died], None, None]:
    """Run a function on every task, in worker processes.

    A task whose process dies is tried once more when all others are done, alone, so that memory
    that others filled is free again. If that process dies too, the result is a ``Died``. Close the
    iterator to end the workers early.

    Args:
        function: called with one task; it and the tasks and results must be picklable.
        tasks: taken one at a time, when a worker is free.
        workers: number of processes; with 0 everything runs in this process.
        setup: called once in each worker, which keeps the result while it lives.

    Yields:
        Each task with its result, in the order in which they end.

    Raises:
        InputError: a task or ``setup`` raised it; its message is unchanged.
        WorkerError: a task raised any other error, whose traceback is in the message.
    """
    if workers < 0:
        raise InputError(f"workers: expected 0 or more processes, found {workers}")
    if workers == 0:
        for task in tasks:
            yield task, function(task)
        return
    job = _Job(function, setup)
    first = _Round(job, tasks, workers)
    yield from first.results()
    for task, _ in first.lost:
        second = _Round(job, [task], workers=1)
        yield from second.results()
        for _, reason in second.lost:
            yield task, Died(reason)


@dataclass(frozen=True)
class _Job(Generic[Task, Result]):
    """What every worker does."""

    function: Callable[[Task], Result]
    setup: Callable[[], Any] | None


@dataclass(frozen=True)
class _Answer:
    """What a worker sends once for its start, and then once for each task.

    Errors travel as text: an exception may not survive pickling.
    """

    result: Any = None
    refusal: str | None = None  # message of an InputError
    failure: str | None = None  # traceback of any other error

    def unpack(self) -> Any:
        """The result, or the worker's error raised in this process."""
        if self.refusal is not None:
            raise InputError(self.refusal)
        if self.failure is not None:
            raise WorkerError(f"a worker process failed:\n{self.failure}")
        return self.result


class _Round(Generic[Task, Result]):
    """One try at every task.

    Attributes:
        lost: tasks whose process died, each with how it ended.
    """

    def __init__(self, job: _Job[Task, Result], tasks: Iterable[Task], workers: int):
        self.job = job
        self.tasks = iter(tasks)
        self.size = workers
        self.workers: dict[Connection, _Worker] = {}
        self.failed_starts = 0  # workers that died while they started, in a row
        self.lost: list[tuple[Task, str]] = []

    def results(self) -> Iterator[tuple[Task, Result]]:
        """Each task with its result; the workers are killed when the iterator ends or is closed."""
        try:
            for task in islice(self.tasks, self.size):
                self._start(task)
            while self.workers:
                for pipe in connection.wait(list(self.workers)):
                    assert isinstance(pipe, Connection)
                    yield from self._receive(self.workers[pipe])
        finally:
            for worker in self.workers.values():
                # SIGTERM is blocked there. A kill does no harm: what a worker has published is
                # whole at any moment.
                worker.process.kill()
                worker.close()

    def _receive(self, worker: "_Worker") -> Iterator[tuple[Task, Result]]:
        """Handle one message of a worker, or its end."""
        try:
            answer: _Answer = worker.pipe.recv()
        except (EOFError, OSError):  # the process is gone, perhaps in the middle of its answer
            self._replace(worker)
            return
        result = answer.unpack()
        if not worker.ready:
            worker.ready = True
            self.failed_starts = 0
            return
        yield worker.task, result
        for task in islice(self.tasks, 1):
            worker.give(task)
            return
        del self.workers[worker.pipe]
        worker.close()

    def _start(self, task: Task) -> None:
        """Start a worker with its first task."""
        worker = _Worker(self.job, task)
        self.workers[worker.pipe] = worker

    def _replace(self, worker: "_Worker") -> None:
        """Put a new worker in place of one that died."""
        del self.workers[worker.pipe]
        reason = worker.how_it_ended()
        if worker.ready:
            self.lost.append((worker.task, reason))
            for task in islice(self.tasks, 1):
                self._start(task)
            return
        self.failed_starts += 1
        if self.failed_starts == START_TRIES:
            raise WorkerError(
                f"{START_TRIES} worker processes one after the other ended while they started, "
                f"the last one {reason}; try fewer workers"
            )
        self._start(worker.task)


class _Worker:
    """A process, its pipe and the task that it has."""

    def __init__(self, job: _Job, task: Any):
        self.pipe, far_end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(job, far_end))
        self.ready = False
        with _worker_surroundings():
            self.process.start()
        far_end.close()
        self.give(task)

    def give(self, task: Any) -> None:
        """Send the next task."""
        self.task = task
        with suppress(BrokenPipeError):  # it died meanwhile: the end of the pipe will say so
            self.pipe.send(task)

    def how_it_ended(self) -> str:
        """Wait for the end of the process, and say what its exit code means."""
        self.close()
        code = self.process.exitcode
        assert code is not None, "the process has been joined"
        if code < 0:
            return f"by {signal.Signals(-code).name}"
        return f"with exit code {code}"

    def close(self) -> None:
        """Close the pipe, which lets the process end, and wait for it."""
        self.pipe.close()
        self.process.join()


def _work(job: _Job, pipe: Connection) -> None:
    """A worker's life: tasks in, answers out, until the pipe ends."""
    with suppress(BrokenPipeError, EOFError):  # the main process is gone, or has no more tasks
        if job.setup is not None:
            try:
                _kept = job.setup()  # such as a lock: it lives until the process ends
            except InputError as error:
                pipe.send(_Answer(refusal=str(error)))
                return
        pipe.send(_Answer())
        while True:
            pipe.send(_answer(job, pipe.recv()))


def _answer(job: _Job, task: Any) -> _Answer:
    """Do one task."""
    try:
        return _Answer(result=job.function(task))
    except InputError as error:
        return _Answer(refusal=str(error))
    except Exception:  # whatever it is, the main process raises it
        return _Answer(failure=traceback.format_exc())


@contextmanager
def _worker_surroundings() -> Iterator[None]:
    """While a worker starts: its environment, and the signals blocked, which it inherits."""
    resource_tracker.ensure_running()  # otherwise the first start launches it and unblocks them
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
