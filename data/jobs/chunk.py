"""What a worker does with the tasks that it is sent.

Errors travel as text: an exception may not survive pickling.
"""

import os
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from data.errors import InputError
from data.jobs.journal import Lease
from data.jobs.surroundings import difference, surroundings

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job(Generic[Task, Result]):
    """What is the same for all tasks of a run.

    Attributes:
        function: called with one task.
        lease: of the run's journal; shared while a task is worked on.
        folder: the command's working folder, which paths may be relative to.
        surroundings: what the worker must run with; None for a worker of the command's own.
    """

    function: Callable[[Task], Result]
    lease: Lease | None
    folder: str
    surroundings: dict[str, str] | None

    @property
    def module(self) -> str:
        """The module of the function."""
        function: Any = self.function
        while isinstance(function, partial):
            function = function.func
        return function.__module__


@dataclass(frozen=True)
class Chunk(Generic[Task, Result]):
    """Some tasks that a worker does one after the other. Dask sees one object, no list."""

    job: Job[Task, Result]
    tasks: list[Task]


@dataclass
class Answer:
    """What a worker sends back for a chunk of tasks."""

    results: list[Any] = field(default_factory=list)  # in the order of the tasks
    seconds: float = 0.0  # of work
    refusal: str | None = None  # message of the InputError that stopped it
    failure: str | None = None  # traceback of any other error that did


def work(chunk: Chunk[Task, Result]) -> Answer:
    """Do the tasks of a chunk, until an error."""
    job = chunk.job
    answer = Answer()
    start = time.monotonic()
    try:
        _check_surroundings(job.surroundings)
        with _inside(job.folder):
            for task in chunk.tasks:
                answer.results.append(_do(job, task))
    except InputError as error:
        answer.refusal = str(error)
    except Exception:  # whatever it is, the command raises it
        answer.failure = traceback.format_exc()
    answer.seconds = time.monotonic() - start
    return answer


def _do(job: Job[Task, Result], task: Task) -> Result:
    """One task, under the lock of its run."""
    if job.lease is None:
        return job.function(task)
    with job.lease.held():
        return job.function(task)


def _check_surroundings(expected: dict[str, str] | None) -> None:
    """Raise InputError where a worker of someone else would make other bytes."""
    if expected is None:
        return
    found = difference(expected, surroundings())
    if found:
        raise InputError(
            f"the worker on {socket.gethostname()} has {found}; start the workers and the command "
            f"from one environment"
        )


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Work in a folder.

    Raises:
        InputError: the worker's machine has no such folder.
    """
    before = os.getcwd()
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"the worker on {socket.gethostname()} cannot enter {folder} ({error.strerror}); all "
            f"machines must see the same file system"
        ) from error
    try:
        yield
    finally:
        os.chdir(before)
