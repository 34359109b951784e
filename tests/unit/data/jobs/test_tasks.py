"""Tasks in processes that really die."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from functools import partial

import pytest

from data.errors import InputError
from data.jobs.journal import Journal
from data.jobs.pace import MOST_TASKS
from data.jobs.tasks import AHEAD, MOST_EARLY, Died, WorkerError, on_workers
from tests.paths import PATIENCE, ROOT


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
    assert sorted(on_workers(square, range(40), workers=workers)) == [(i, i * i) for i in range(40)]
    assert list(on_workers(square, [], workers=workers)) == []


def test_a_deadly_task_costs_itself_alone(tmp_path):
    results = dict(on_workers(partial(die_once, tmp_path), range(10), workers=2))
    assert set(results) == set(range(10))
    assert results.pop(3) == Died("by SIGSEGV")
    assert all(result[0] == task and result[1] != os.getpid() for task, result in results.items())


def test_a_chunk_that_dies_costs_its_deadly_task_alone(tmp_path):
    """Later chunks have many tasks; which one was deadly turns out when each is tried alone."""
    results = dict(on_workers(partial(die_late, tmp_path), range(200), workers=2))
    assert results.pop(150) == Died("by SIGSEGV")
    assert results == {task: task for task in range(200) if task != 150}


def die_late(folder, task):
    if task == 150:
        os.kill(os.getpid(), signal.SIGSEGV)
    return task


def test_an_exit_code_is_named():
    assert list(on_workers(leave, [1], workers=1)) == [(1, Died("with exit code 7"))]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_input_error_comes_through_as_it_is(workers):
    with pytest.raises(InputError, match="^seven is too many$"):
        list(on_workers(complain, [7], workers=workers))


def test_any_other_error_comes_with_its_traceback():
    with pytest.raises(
        WorkerError, match="^1: (.|\n)*in complain(.|\n)*ZeroDivisionError: by hand"
    ):
        list(on_workers(complain, [1], workers=2))


def test_workers_that_cannot_start_end_the_run(monkeypatch):
    monkeypatch.setattr(square, "__module__", "no_such_module")
    with pytest.raises(InputError, match="3 worker processes .* the last one with exit code 1"):
        list(on_workers(square, range(10), workers=1))


def test_workers_have_one_thread_and_this_process_keeps_its_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("GDAL_CACHEMAX", raising=False)
    [(_, found)] = on_workers(environment, [0], workers=1)
    assert found == {"OMP_NUM_THREADS": "1", "GDAL_CACHEMAX": "64"}
    assert environment(0) == {"OMP_NUM_THREADS": "5", "GDAL_CACHEMAX": None}


def take(taken, tasks):
    for task in tasks:
        taken.append(task)
        yield task


def test_tasks_are_taken_when_they_can_be_worked_on():
    taken = []
    with closing(on_workers(square, take(taken, range(10**9)), workers=2)) as results:
        for _ in range(1000):
            next(results)
    assert 1000 <= len(taken) <= 1000 + 2 * AHEAD * MOST_TASKS


def process_of(task):
    return os.getpid()


def wait_for_company(folder, task):
    """Take until a second process is at work, ``PATIENCE`` at most."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + PATIENCE
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid()


def test_few_tasks_begin_with_one_worker_and_get_more_if_they_take_long(tmp_path):
    assert len(set(dict(on_workers(process_of, range(3), workers=2)).values())) == 1
    slow = partial(wait_for_company, tmp_path)
    assert len(set(dict(on_workers(slow, range(3), workers=2)).values())) == 2


def slow_start(task):
    time.sleep(0.3 if task == 0 else 0.001)
    return task


def test_results_come_in_order_where_asked_for():
    taken = []
    results = on_workers(slow_start, take(taken, range(300)), workers=2, ordered=True)
    with closing(results):
        assert next(results) == (0, 0)
        assert len(taken) <= 2 * MOST_EARLY + MOST_TASKS  # the other worker waited
        assert list(results) == [(i, i) for i in range(1, 300)]


def test_a_death_leaves_the_order():
    results = on_workers(die_at_three, range(8), workers=2, ordered=True)
    assert list(results) == [(i, i) if i != 3 else (3, Died("by SIGKILL")) for i in range(8)]


def die_at_three(task):
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_a_worker_that_dies_now_and_then_does_not_end_the_run(tmp_path):
    tasks = [tmp_path / str(number) for number in range(8)]
    results = dict(on_workers(die_the_first_time, tasks, workers=1))
    assert set(results.values()) == {"done"}


def die_the_first_time(path):
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_a_worker_shares_the_lock_while_it_works(tmp_path):
    with Journal(tmp_path / "run.jsonl", "plan") as journal:
        [(_, before)] = on_workers(hold_off, [journal.path], workers=1, lease=journal.lease)
        assert before == "held"
        journal.shut_out_workers()
        with pytest.raises(InputError, match="is at work here"):
            list(on_workers(hold_off, [journal.path], workers=1, lease=journal.lease))


def hold_off(path):
    """Whether this process has the journal open."""
    descriptors = os.listdir("/proc/self/fd")
    files = []
    for descriptor in descriptors:
        with suppress(FileNotFoundError):
            files.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return "held" if str(path) in files else "free"


def test_nothing_is_left_behind(tmp_path):
    """Neither processes nor files, whoever is killed and when."""
    command = tmp_path / "command.py"
    command.write_text(
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from data.jobs.tasks import on_workers\n"
        "from tests.unit.data.jobs.test_tasks import late\n"
        "list(on_workers(partial(late, Path('.')), range(9), workers=2))\n"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    semaphores = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)},
    )
    while not (tmp_path / "1").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    assert set(os.listdir("/dev/shm")) <= semaphores
    process.kill()
    _, stderr = process.communicate(timeout=PATIENCE)  # its pipe ends when the workers do
    assert stderr == b""
    assert list(scratch.iterdir()) == []


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
        list(on_workers(partial(late, tmp_path), tasks(), workers=2))
    assert time.monotonic() - start < 50  # less than the task would have taken


class PlaceError(InputError):
    """An error that pickle cannot make again: its constructor wants two arguments."""

    def __init__(self, path, reason):
        super().__init__(f"{path}: {reason}")


def misplaced(task):
    raise PlaceError("a.tif", "no such file")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_input_error_of_any_kind_is_one_line_in_this_process(workers):
    with pytest.raises(InputError) as caught:
        list(on_workers(misplaced, [1], workers=workers))
    assert str(caught.value) == "a.tif: no such file"


def test_a_command_prints_that_line_alone(tmp_path):
    """The error of a worker leaves a command as if it had been raised in the main process."""
    command = tmp_path / "command.py"
    command.write_text(
        "from data.jobs.tasks import on_workers\n"
        "from launch.cli import run\n"
        "from tests.unit.data.jobs.test_tasks import misplaced\n"
        "if __name__ == '__main__':\n"
        "    run(lambda: list(on_workers(misplaced, [1], workers=1)))\n"
    )
    done = subprocess.run(
        [sys.executable, command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr == "error: a.tif: no such file\n"
