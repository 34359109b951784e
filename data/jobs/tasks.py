"""Independent tasks on Dask workers, so that a crash of a C library costs one task and not the run.

They travel in chunks (see pace.py). Only a few chunks a worker are under way, whatever the number
of tasks. What is done is for the caller to record: nothing here outlives the run.
"""

import os
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from queue import Empty, SimpleQueue
from typing import Any, Generic

from data.errors import InputError
from data.jobs.chunk import Answer, Chunk, Job, Result, Task, work
from data.jobs.connect import Connection, connected
from data.jobs.journal import Lease
from data.jobs.pace import Pace
from data.jobs.places import Place
from data.jobs.surroundings import surroundings

AHEAD = 2  # chunks a worker: one that it works on, one that waits for it at the scheduler
MOST_EARLY = 64  # results a worker that wait for an earlier one
MANY = 10**9  # tasks, where nobody knows how many there are
SOON = 0.5  # seconds without a result, after which more workers are worth their start
LOOK = 5.0  # seconds without a result, after which it is checked that there are still workers
MOST_DEATHS = 2


class WorkerError(RuntimeError):
    """A worker met a bug or could not start: an error that is no InputError."""


@dataclass(frozen=True)
class Died:
    """Stands in place of a result: two processes that tried the task ended before they answered."""

    reason: str  # such as "by SIGKILL"; empty if nobody knows

    def __str__(self) -> str:
        """The reason as it follows ``were ended``."""
        return f" {self.reason}" if self.reason else ""


def on_workers(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int | None = None,
    place: Place = None,
    lease: Lease | None = None,
    ordered: bool = False,
) -> Generator[tuple[Task, Result | Died], None, None]:
    """Run a function on every task, in worker processes.

    A task whose process dies is tried once more; on this machine alone, so that memory that others
    filled is free again. If that process dies too, the result is a ``Died``. Close the iterator to
    end early.

    Args:
        function: called with one task; it and the tasks and results must be picklable.
        tasks: taken when a worker will soon be free; ``str`` of one names it in errors.
        workers: number of processes; with 0 everything runs in this process, with None the place
            decides.
        place: where the processes are; None for this machine.
        lease: of the run's journal; shared by each worker while it works on a task.
        ordered: yield in the order of the tasks.

    Yields:
        Each task with its result, in the order in which they end unless ``ordered``.

    Raises:
        InputError: a task raised it, and its message is unchanged; or ``place`` cannot be used.
        WorkerError: a task raised any other error, whose traceback is in the message.
    """
    if workers is not None and workers < 0:
        raise InputError(f"workers: expected 0 or more processes, found {workers}")
    if workers == 0:
        for task in tasks:
            yield task, function(task)
        return
    expected = None if place is None else surroundings()
    count = length_hint(tasks, MANY)
    if count == 0:
        return
    job = Job(function, lease, os.getcwd(), expected)
    with connected(place, workers=workers, module=job.module, tasks=count) as connection:
        run = _Run(connection, job, tasks, count=count, ordered=ordered)
        yield from run.results()


@dataclass
class _Item(Generic[Task]):
    """A task on its way."""

    number: int
    task: Task
    deaths: int = 0  # of processes that had this task alone


class _Run(Generic[Task, Result]):
    """All chunks of one run."""

    def __init__(
        self,
        connection: Connection,
        job: Job[Task, Result],
        tasks: Iterable[Task],
        *,
        count: int,
        ordered: bool,
    ):
        self.connection = connection
        self.job = job
        self.ordered = ordered
        self.name = f"skysense-{uuid.uuid4().hex}"
        self.tasks = enumerate(tasks)
        self.pace = Pace(connection.most, count)
        self.chunks = 0  # sent so far
        self.under_way: dict[Any, list[_Item]] = {}  # by the chunk's future
        self.ended: SimpleQueue[Any] = SimpleQueue()  # futures
        self.lost: deque[_Item] = deque()  # their process died; to be tried again
        self.is_alone = False  # whether what is under way is such a task, on this machine
        self.early: dict[int, tuple[Task, Result | Died]] = {}  # wait for an earlier task
        self.next = 0  # number of the task whose turn it is, if ordered

    def results(self) -> Iterator[tuple[Task, Result | Died]]:
        """Each task with its result."""
        self._send_more()
        while self.under_way:
            future = self._wait()
            if future is None:
                self._send_more()
                continue
            items = self.under_way.pop(future)
            self.is_alone = False
            for item, result in self._outcome(future, items):
                yield from self._in_turn(item, result)
            self._send_more()

    def _in_turn(self, item: _Item, result: Any) -> Iterator[tuple[Task, Result | Died]]:
        """What can be yielded, now that a task has its result."""
        if not self.ordered:
            yield item.task, result
            return
        self.early[item.number] = (item.task, result)
        while self.next in self.early:
            self.next += 1
            yield self.early.pop(self.next - 1)

    def _send_more(self) -> None:
        """Send chunks until enough are under way."""
        while self._has_room():
            if self.lost:
                items = [self.lost.popleft()]
                self.is_alone = self.connection.local is not None
            else:
                chosen = islice(self.tasks, self.pace.next())
                items = [_Item(number, task) for number, task in chosen]
            if not items:
                return
            self._send(items)

    def _has_room(self) -> bool:
        """Whether one more chunk may be sent."""
        if self.is_alone or (self.lost and self.connection.local):
            return not self.under_way
        workers = self.connection.workers
        # Dask keeps chunks back for the next free worker only when their group is larger than the
        # cluster. Before that, a second one would be at a worker, and be lost with the first.
        ahead = AHEAD if self.chunks > 2 * workers else 1
        return len(self.under_way) < ahead * workers and len(self.early) < MOST_EARLY * workers

    def _send(self, items: list[_Item]) -> None:
        """Send one chunk."""
        chunk = Chunk(self.job, [item.task for item in items])
        key = (self.name, self.chunks)
        future = self.connection.client.submit(work, chunk, key=key, pure=False)
        self.chunks += 1
        self.under_way[future] = items
        future.add_done_callback(self.ended.put)

    def _wait(self) -> Any:
        """The future of the chunk that ends next; None if more workers have come before."""
        workers = self.connection.workers
        while True:
            seconds = SOON if workers < self.connection.most else LOOK
            try:
                return self.ended.get(timeout=seconds)
            except Empty:
                self.connection.check()
                self.connection.grow()
            if self.connection.workers > workers:
                return None

    def _outcome(self, future: Any, items: list[_Item]) -> Iterator[tuple[_Item, Result | Died]]:
        """The results of a chunk; raises the error that ended it."""
        from distributed import KilledWorker

        try:
            answer: Answer = future.result()
        except KilledWorker as death:
            yield from self._lose(items, self.connection.how_it_ended(str(death.last_worker.name)))
            return
        except (CancelledError, OSError) as error:  # errors of a task come as text, not so
            raise InputError(self.connection.lost_scheduler()) from error
        except ImportError as error:
            raise InputError(
                f"{self.connection.place}: a worker cannot load its task ({error}); start the "
                f"workers in the command's environment and folder"
            ) from error
        self.connection.is_alive()
        self.pace.note(len(answer.results), answer.seconds)
        yield from zip(items, answer.results)
        if answer.refusal is not None:
            raise InputError(answer.refusal)
        if answer.failure is not None:
            item = items[len(answer.results)]
            raise WorkerError(f"{item.task}: a worker process failed:\n{answer.failure}")

    def _lose(self, items: list[_Item], reason: str) -> Iterator[tuple[_Item, Died]]:
        """Note that a chunk's process has died; yields the task that has died too often."""
        self.connection.is_alive()
        for item in items:
            if len(items) == 1:
                item.deaths += 1
            if item.deaths < MOST_DEATHS:
                self.lost.append(item)
            else:
                yield item, Died(reason)
