"""The loader's processes: killed, stopped and failing, with what comes out of them."""

import faulthandler
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from data.errors import InputError
from data.stream.workers import TRIES, on_workers
from tests.paths import PATIENCE


@dataclass
class Item:
    """A result with tensors at several depths."""

    number: int
    pixels: dict[str, torch.Tensor]
    parts: list[torch.Tensor]
    note: str | None = None


def make(number: int) -> Item:
    """Tensors that follow from a number: one that fills no pipe, empty ones, several types."""
    generator = torch.Generator().manual_seed(number)
    large = torch.rand(300, 300, generator=generator)
    mask = torch.rand(7, 3, generator=generator) > 0.5
    return Item(number, {"a": large.T, "b": torch.empty(0, 4)}, [mask, torch.tensor(number)])


def same(one: Item, other: Item) -> bool:
    tensors = [*one.pixels.values(), *one.parts]
    others = [*other.pixels.values(), *other.parts]
    equal = all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(tensors, others))
    return equal and one.number == other.number


def stream(make, items, count=2, patience=30.0):
    return on_workers(make, items, count=count, ahead=2, patience=patience)


OTHERS: set[int] = set()


def children() -> list[int]:
    """Processes of this one, the oldest first."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return sorted(map(int, found.split()))


@pytest.fixture(autouse=True)
def others_are_known():
    """A library that another test has used may have left a helper running."""
    OTHERS.clear()
    OTHERS.update(children())


def forked() -> list[int]:
    """Processes that the test has forked, the oldest first."""
    return [pid for pid in children() if pid not in OTHERS]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order_whole_and_once(count):
    results = list(stream(make, range(5, 15), count=count))
    assert [result.number for result in results] == list(range(5, 15))
    assert all(same(result, make(result.number)) for result in results)
    assert not forked()


@pytest.mark.parametrize("hurt", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_is_replaced_and_nothing_is_missing_or_twice(hurt, caplog):
    results = []
    for result in stream(make, range(12), patience=1.0):
        results.append(result)
        if result.number in (3, 6):
            os.kill(forked()[0], hurt)
    assert [result.number for result in results] == list(range(12))
    assert all(same(result, make(result.number)) for result in results)
    assert not forked()
    cause = {signal.SIGKILL: "was killed by SIGKILL", signal.SIGSTOP: "gave nothing for 1 s"}
    lines = [record.getMessage() for record in caplog.records]
    assert lines and all(cause[hurt] in line for line in lines)


def test_signals_for_the_rank_do_not_touch_the_loader(caplog):
    for result in stream(make, range(8)):
        if result.number == 2:
            for pid in forked():
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                    os.kill(pid, number)
    assert result.number == 7 and not caplog.records


def crash(number: int) -> Item:
    if number == 3:
        faulthandler.disable()  # pytest's would print the stacks
        os.kill(os.getpid(), signal.SIGSEGV)  # as a decoder would
    return make(number)


def test_an_item_that_no_process_survives_ends_with_one_line():
    results = []
    with pytest.raises(InputError) as error:
        results += [result.number for result in stream(crash, range(6))]
    line = str(error.value)
    assert "the batch of step 3" in line and "\n" not in line
    assert line.count("was killed by SIGSEGV") == TRIES
    assert not forked()


def fail(number: int) -> Item:
    raise KeyError(f"item {number}")


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="in fail\n"):
        list(stream(fail, range(2)))


def test_the_processes_end_with_the_one_that_forked_them():
    reader, writer = os.pipe()
    rank = os.fork()
    if rank == 0:
        results = stream(make, range(100))
        next(results)
        os.write(writer, " ".join(map(str, forked())).encode())
        signal.pause()
    loaders = [int(pid) for pid in os.read(reader, 100).split()]
    assert len(loaders) == 2
    os.kill(rank, signal.SIGKILL)
    os.waitpid(rank, 0)
    end = time.monotonic() + PATIENCE
    while any(is_running(pid) for pid in loaders):
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process has not ended; nobody may have collected it."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
