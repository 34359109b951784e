"""Leaving the process groups ends their threads, also after several engines in one process."""

from pathlib import Path

from engine.distributed import zero
from engine.distributed.teacher import EmaTeacher
from models.reducer import Reducer
from tests.dist.processes import run_processes
from tests.dist.small import Small, start, train_step


def gloo_threads() -> int:
    """Threads of gloo's process groups in this process."""
    names = [
        task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()
    ]
    return names.count("pt_gloo_runloop")


def train(ep_size: int, steps: int) -> None:
    """A short training with a teacher; its objects go when it returns."""
    engine = start(ep_size)
    teacher = EmaTeacher(engine, Small(ep_size, Reducer()))
    zero.join_expert_groups(teacher.module)
    for step in range(steps):
        train_step(engine, step)
        teacher.update(0.9)
    teacher.wait()


def worker() -> tuple[int, int]:
    """Numbers of gloo's threads before and after leaving."""
    zero.init_distributed()
    for ep_size in (1, 2):
        train(ep_size, steps=2)
    before = gloo_threads()
    zero.shutdown()
    return before, gloo_threads()


def test_no_thread_outlives_the_process_groups():
    for before, after in run_processes(2, "tests.dist.test_shutdown:worker"):
        assert before > 2  # the world's and those of expert groups
        assert after == 0
