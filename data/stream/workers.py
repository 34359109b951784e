"""Processes that make the items of a list ahead of time: watched, and replaced when one is lost.

What an item contains follows from its number alone. So a process that takes the place of a lost one
begins with the first item that was not handed out, and nothing changes.
"""

import ctypes
import gc
import logging
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import torch

from data.errors import InputError
from data.stream.tensor_pipe import receive, send

log = logging.getLogger(__name__)

TRIES = 3  # processes that may be lost over one item
# Its parent ends a process here. Signals for the parent often reach the whole process group.
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class _Fault:
    """An error of this project in a process: its traceback."""

    text: str


class _Lost:
    """Stands behind the last result of a process that has ended."""


def on_workers(
    make: Callable[[int], Any], items: Sequence[int], *, count: int, ahead: int, patience: float
) -> Iterator[Any]:
    """Make every item, and hand the results out in order. Iterate in the main thread.

    Args:
        make: item -> dataclasses, dictionaries and lists of tensors on the CPU and plain values.
        items: numbers.
        count: processes; 0: in this one, when a result is asked for.
        ahead: results that are made ahead, a process; at least 2.
        patience: seconds to wait for a process before it counts as lost.

    Raises:
        InputError: several processes were lost over one item.
        RuntimeError: ``make`` failed; with the traceback.
    """
    if count == 0:
        yield from map(make, items)
        return
    workers: list[_Worker] = []
    try:
        for number in range(count):
            workers.append(_Worker(make, items[number::count], ahead))
        for position, item in enumerate(items):
            number = position % count
            losses: list[str] = []
            result = workers[number].take(patience)
            while isinstance(result, _Lost):
                losses.append(workers[number].end())
                if len(losses) == TRIES:
                    raise InputError(_lost_too_often(item, losses))
                log.warning(
                    "warning: a process of the loader %s; another one goes on at step %d",
                    losses[-1],
                    item,
                )
                workers[number] = _Worker(make, items[position::count], ahead)
                result = workers[number].take(patience)
            if isinstance(result, _Fault):
                raise RuntimeError(f"in a process of the loader:\n{result.text}")
            yield result
    finally:
        for worker in workers:
            worker.end()


def _lost_too_often(item: int, losses: list[str]) -> str:
    """Why no process can make an item."""
    return (
        f"loader: expected the batch of step {item}, found {len(losses)} processes lost over it: "
        f"{'; '.join(losses)}; look at the memory of the machine and at the shards' disk, or set "
        "data.workers to 0 to see the error"
    )


class _Worker:
    """A forked process, and a thread here that receives its results."""

    def __init__(self, make: Callable[[int], Any], items: Sequence[int], ahead: int):
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        # One more result waits in the process itself.
        self._room = threading.Semaphore(max(1, ahead - 1))
        self._silence = 0.0  # seconds after which ``take`` gave up waiting
        self._ended = False
        self._connection, theirs = Pipe(duplex=False)
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _work(make, items, theirs, parent)
        theirs.close()  # else nobody would see that the process has ended
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def take(self, patience: float) -> Any:
        """The next result; ``_Lost`` if there will be none, or none came in ``patience`` s."""
        try:
            result = self._results.get(timeout=patience)
        except queue.Empty:
            self._silence = patience
            return _Lost()
        self._room.release()
        return result

    def end(self) -> str:
        """End the process; returns what had become of it. Calls after the first do nothing."""
        if self._ended:
            return ""
        self._ended = True
        os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        self._room.release()  # the thread may wait for room
        self._thread.join()
        self._connection.close()
        code = os.waitstatus_to_exitcode(status)
        if self._silence:
            return f"gave nothing for {self._silence:g} s"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"left with exit code {code}"

    def _receive(self) -> None:
        """The thread: take in results while there is room for them."""
        result: Any = None
        while not isinstance(result, _Lost):
            self._room.acquire()
            if self._ended:
                return
            try:
                result = receive(self._connection)
            except (EOFError, OSError):
                result = _Lost()
            self._results.put(result)


def _work(
    make: Callable[[int], Any], items: Sequence[int], connection: Connection, parent: int
) -> None:
    """The forked process: make and send. It never returns."""
    try:
        _prepare(parent)
        for item in items:
            try:
                result = make(item)
            except Exception:
                result = _Fault(traceback.format_exc())
            send(connection, result)
    finally:
        os._exit(0)  # what the parent has buffered or registered for its exit is not ours


def _prepare(parent: int) -> None:
    """Make the process end with its parent, and with it alone."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before
        os._exit(0)
    gc.enable()  # a training collects by the step, and this process has none
    torch.set_num_threads(1)  # the parent's threads are not here
