"""Saving while the training goes on: what is saved, what is refused, what a kill leaves."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from engine.checkpoint import state as state_file
from engine.checkpoint.files import complete, manifest, verify
from engine.checkpoint.host_copy import HostCopy
from engine.checkpoint.load import latest, load
from engine.checkpoint.save import Saver
from engine.checkpoint.state import State, write_state
from engine.distributed import zero
from engine.distributed.pieces import FAMILIES
from tests.dist.processes import ProcessesFailed, run_processes
from tests.dist.test_checkpoint import everything, message, open_run, train

MODULE = "tests.dist.test_save_behind"


def saver_of(folder, run, **options):
    """A saver of a run."""
    engine, teacher = run
    return Saver(Path(folder), engine=engine, teacher=teacher, **{"keep": 2, **options})


def slow_writing():
    """Let this process write no file until the returned event is set."""
    go_on = threading.Event()
    write = state_file.write_shards

    def late(*arguments):
        go_on.wait()
        return write(*arguments)

    state_file.write_shards = late
    return go_on


def behind(folder):
    """Save after two steps, and train on while rank 1 does not get on with writing.

    Returns:
        What was there to save, what a new run loads of it, and whether it was published: after the
        second step behind, and after rank 1 could write.
    """
    zero.init_distributed()
    run = open_run()
    train(*run, range(2))
    expected = everything(*run)
    saver = saver_of(folder, run)
    if zero.ranks().rank == 1:
        go_on = slow_writing()
    saver.start(2, {"centres": {"a": torch.ones(3)}})
    published = []
    for step in (2, 3):
        train(*run, [step])
        saver.poll()
    published.append(len(complete(Path(folder) / "checkpoints")))
    if zero.ranks().rank == 1:
        go_on.set()
    saver.start(4, {})  # waits for the first
    published.append(len(complete(Path(folder) / "checkpoints")))
    saver.finish()
    other = open_run()
    load(Path(folder) / "checkpoints/step-00000002", *other)
    return expected, everything(*other), published


def test_what_is_saved_is_the_state_at_the_start(tmp_path):
    for expected, found, published in run_processes(2, f"{MODULE}:behind", [str(tmp_path)]):
        assert published == [0, 1]
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensor, found[name]), name
    assert [folder.name for folder in complete(tmp_path / "checkpoints")] == [
        "step-00000002",
        "step-00000004",
    ]


def failing(folder):
    """Rank 1 finds a folder where its third file should be: what is said, and what is left."""
    zero.init_distributed()
    run = open_run()
    train(*run, range(1))
    saver = saver_of(folder, run)
    saver.start(1, {})
    saver.finish()
    if zero.ranks().rank == 1:
        go_on = slow_writing()
    saver.start(2, {})
    saver.poll()
    if zero.ranks().rank == 1:
        Path(
            folder, "checkpoints/.unfinished-step-00000002/exp_avg_sq/rank-00001.safetensors"
        ).mkdir()
        go_on.set()
    line = None
    while line is None:
        line = message(saver.poll)
        time.sleep(0.1)
    left = sorted(path.name for path in Path(folder, "checkpoints").iterdir())
    torch.distributed.barrier()  # both have looked
    saver.start(3, {})
    saver.finish()
    return line, left


def test_a_failed_save_is_said_on_all_ranks_and_leaves_nothing(tmp_path):
    results = run_processes(2, f"{MODULE}:failing", [str(tmp_path)])
    assert results[0] == results[1]
    line, left = results[0]
    assert line.startswith("rank 1: ")
    assert "exp_avg_sq/rank-00001.safetensors: cannot be written (is a directory)" in line
    assert left == ["step-00000001"]
    assert latest(tmp_path).name == "step-00000003"


def keep_for_ever(folder):
    """Save after steps 1 to 9, and keep the newest and the first from each third step on."""
    zero.init_distributed()
    run = open_run(ep_size=1)
    saver = saver_of(folder, run, keep=1, keep_every=3)
    for step in (1, 2, 4, 5, 6, 8, 10, 11):
        saver.start(step, {})
    saver.finish()


def test_some_checkpoints_stay_for_ever(tmp_path):
    run_processes(1, f"{MODULE}:keep_for_ever", [str(tmp_path)])
    found = [folder.name for folder in complete(tmp_path / "checkpoints")]
    assert found == ["step-00000004", "step-00000006", "step-00000010", "step-00000011"]


def killed_at_random(folder, seed):
    """Save again and again until a signal comes from outside the training's thread."""
    zero.init_distributed()
    chance = random.Random(seed)
    run = open_run(width=256)
    train(*run, range(1))
    saver = saver_of(folder, run)
    if zero.ranks().rank == chance.randrange(2):
        delay = chance.uniform(0.05, 3)
        threading.Timer(delay, os.kill, [os.getpid(), signal.SIGKILL]).start()
    step = 0
    while True:
        step += 1
        saver.start(step, {})
        train(*run, [step])
        saver.poll()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_any_moment_publishes_nothing_broken(tmp_path, seed):
    with pytest.raises(ProcessesFailed, match="ended with -9"):
        run_processes(2, f"{MODULE}:killed_at_random", [str(tmp_path), seed])
    checkpoints = complete(tmp_path / "checkpoints")
    for checkpoint in checkpoints:
        files = manifest(checkpoint)
        assert len(files) == 2 * len(FAMILIES) + 2  # of two ranks; buffers, state
        verify(checkpoint, files, files)
    assert len(checkpoints) <= 3  # one may wait to be deleted


@pytest.mark.long
def test_the_training_waits_for_less_than_a_tenth_of_a_save(tmp_path):
    elements = 2**30 // 4 // len(FAMILIES)
    shards = {family: [torch.randn(elements)] for family in FAMILIES}
    state = State(shards=shards, layout=[[]], tensors={}, values={})
    for family in FAMILIES:
        (tmp_path / family).mkdir()
    host = HostCopy()
    host.prepare(state)
    shares = []
    for _ in range(5):
        began = time.perf_counter()
        copy = host.take(state)
        waited = time.perf_counter() - began
        write_state(copy, tmp_path, 0)
        shares.append(waited / (time.perf_counter() - began))
    print(f"share of a save of 1 GiB that the training waits for: {sorted(shares)}")
    assert min(shares) < 0.1
