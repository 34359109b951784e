"""Tasks in processes that really die."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial

import pytest

from data.errors import InputError
from data.jobs.pool import Died, WorkerError, in_processes
from tests.paths import ROOT


def square(task):
    return task * task


def die_once(folder, task):
    """Tasks 3 and 5 kill their process, 5 only the first time."""
    if task == 3 or (task == 5 and not (folder / "tried").exists()):
        if task == 5:
            (folder / "tried").touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return task, os.getpid()


def leave(task):
    os._exit(7)


def complain(task):
    raise InputError("seven is too many") if task == 7 else ZeroDivisionError("by hand")


def environment(task):
    return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "GDAL_CACHEMAX")}


def late(folder, task):
    (folder / str(task)).touch()
    time.sleep(60)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_task_has_its_result(workers):
    assert sorted(in_processes(square, range(40), workers=workers)) == [
        (i, i * i) for i in range(40)
    ]
    assert list(in_processes(square, [], workers=workers)) == []


def test_a_deadly_task_costs_itself_alone(tmp_path):
    results = dict(in_processes(partial(die_once, tmp_path), range(10), workers=2))
    assert set(results) == set(range(10))
    assert results.pop(3) == Died("by SIGSEGV")
    assert all(result[0] == task and result[1] != os.getpid() for task, result in results.items())


def test_an_exit_code_is_named():
    assert list(in_processes(leave, [1], workers=1)) == [(1, Died("with exit code 7"))]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_input_error_comes_through_as_it_is(workers):
    with pytest.raises(InputError, match="^seven is too many$"):
        list(in_processes(complain, [7], workers=workers))


def test_any_other_error_comes_with_its_traceback():
    with pytest.raises(WorkerError, match="in complain(.|\n)*ZeroDivisionError: by hand"):
        list(in_processes(complain, [1], workers=2))


def refuse():
    raise InputError("not here")


def test_a_worker_that_cannot_start_ends_the_run():
    with pytest.raises(InputError, match="not here"):
        list(in_processes(square, range(10), workers=2, setup=refuse))
    with pytest.raises(
        WorkerError, match="3 worker processes .* while they started, the last one with exit code 7"
    ):
        list(in_processes(square, range(10), workers=2, setup=partial(os._exit, 7)))


def test_workers_have_one_thread_and_this_process_keeps_its_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    [(_, found)] = in_processes(environment, [0], workers=1)
    assert found == {"OMP_NUM_THREADS": "1", "GDAL_CACHEMAX": "64"}
    assert environment(0) == {"OMP_NUM_THREADS": "5", "GDAL_CACHEMAX": None}


def take(taken, tasks):
    for task in tasks:
        taken.append(task)
        yield task


def test_tasks_are_taken_when_they_can_be_worked_on():
    taken = []
    with closing(in_processes(square, take(taken, range(10**9)), workers=2)) as results:
        for _ in range(5):
            next(results)
    assert len(taken) <= 5 + 2


def test_closing_ends_workers_in_the_middle_of_a_task(tmp_path):
    first = iter([0])

    def tasks():
        yield next(first)
        while not (
            tmp_path / "0"
        ).exists():  # the other task starts when this one is being worked on
            time.sleep(0.01)
        raise InputError("enough")

    start = time.monotonic()
    with pytest.raises(InputError, match="enough"):
        list(in_processes(partial(late, tmp_path), tasks(), workers=2))
    assert time.monotonic() - start < 50  # less than the task would have taken


class PlaceError(InputError):
    """An error that pickle cannot make again: its constructor wants two arguments."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")


def misplaced(task):
    raise PlaceError("a.tif", "no such file")


def refuse_the_place():
    misplaced(None)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_input_error_of_any_kind_is_one_line_in_this_process(workers):
    with pytest.raises(InputError) as caught:
        list(in_processes(misplaced, [1], workers=workers))
    assert str(caught.value) == "a.tif: no such file"


def test_so_is_one_of_the_set_up():
    with pytest.raises(InputError) as caught:
        list(in_processes(square, [1], workers=1, setup=refuse_the_place))
    assert str(caught.value) == "a.tif: no such file"


def test_a_command_prints_that_line_alone(tmp_path):
    """The error of a worker leaves a command as if it had been raised in the main process."""
    command = tmp_path / "command.py"
    command.write_text(
        "from data.jobs.pool import in_processes\n"
        "from launch.cli import run\n"
        "from tests.unit.data.jobs.test_pool import misplaced\n"
        "if __name__ == '__main__':\n"
        "    run(lambda: list(in_processes(misplaced, [1], workers=1)))\n"
    )
    done = subprocess.run(
        [sys.executable, command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr == "error: a.tif: no such file\n"
