"""Ranks that fail, die, stop and hang, as real processes: one line on the screen names the first.

But for one test the ranks exchange nothing, so every one of them must learn of the others' fate
from the files.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from engine.resilience.heartbeat import read_beat
from tests.environment import environment
from tests.paths import PATIENCE, ROOT

WORLD = 3
RANK = """
import sys, time
from pathlib import Path
from engine.config.settings import WatchdogSettings
from engine.errors import ConfigError, RankError
from engine.resilience.progress import PROGRESS
from engine.resilience.supervise import Supervision
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
{before}
settings = WatchdogSettings(steps=2, least={least}, other=60, silence=2)
with Supervision(folder, settings, attempt=2, rank=rank, world_size=3):
    for _ in range(5):
        PROGRESS.made_step(0.1)
    PROGRESS.enter("backward")
    print("ready", flush=True)
    {work}
"""
PHASES = ("backward", "optimizer")
WAITS = "time.sleep(60)"
FAILS = """
    while not (folder / 'go').exists():
        time.sleep(0.01)
    if rank == 1:
        raise KeyError('a weight')
    time.sleep(60)"""
WRONG = FAILS.replace("KeyError('a weight')", "ConfigError('x: expected 1, found 2')")
FOLLOWS = """
    while not (folder / 'go').exists():
        time.sleep(0.01)
    if rank != 1:
        raise RuntimeError('gloo/transport: Connection closed by peer')
    time.sleep(60)"""
HANGS = """
    if rank != 1:
        PROGRESS.enter("optimizer")
    time.sleep(60)"""
JOIN = """
import torch
import torch.distributed as dist
store = f"file://{folder}/store"
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=3)
dist.all_reduce(torch.ones(1))
"""
WAITS_FOR_ANOTHER = """
    if rank != 1:
        PROGRESS.enter("optimizer")
        dist.all_reduce(torch.ones(7))
    time.sleep(60)"""
ALIKE = FAILS.replace("if rank == 1", "if True").replace("KeyError('a weight')", "RankError('x')")


class Ranks:
    """The processes of a run."""

    def __init__(self, folder, work: str, least: float, before: str):
        (folder / "heartbeats").mkdir()
        self.folder = folder
        self.processes = []
        for rank in range(WORLD):
            command = [
                sys.executable,
                "-c",
                RANK.format(work=work, least=least, before=before),
                str(rank),
                str(folder),
            ]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.processes.append(process)
        for process in self.processes:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        end = time.monotonic() + PATIENCE
        while not all(self.phase(rank) in PHASES for rank in range(WORLD)):
            assert time.monotonic() < end
            time.sleep(0.02)

    def phase(self, rank: int) -> str | None:
        """The phase in a rank's last heartbeat."""
        beat = read_beat(self.folder / "heartbeats", rank)
        return beat and beat.phase

    def end(self, seconds: float) -> tuple[list[int], str]:
        """Let them go on; exit codes of all ranks, and what they said together."""
        (self.folder / "go").touch()
        deadline = time.monotonic() + seconds
        said = ""
        for process in self.processes:
            process.wait(max(0.1, deadline - time.monotonic()))
            said += process.stderr.read()
        return [process.returncode for process in self.processes], said

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def ranks(tmp_path):
    started = []

    def start(work: str, least: float = 60, before: str = "") -> Ranks:
        started.append(Ranks(tmp_path, work, least, before))
        return started[-1]

    yield start
    for run in started:
        run.kill()


def one_line(said: str, words: str, folder) -> None:
    """The screen has the verdict and nothing else."""
    host = re.escape(socket.gethostname())
    place = f"error: rank 1 on {host}, after 5 steps, backward: {words}"
    end = re.escape(f"; see {folder}/failures/00000002\n")
    assert re.fullmatch(place + ".*" + end, said), said


@pytest.mark.parametrize("work, words, code", [(FAILS, "KeyError", 1), (WRONG, "x: expec", 2)])
def test_an_error_of_one_rank_is_said_once_and_ends_all(ranks, tmp_path, work, words, code):
    codes, said = ranks(work).end(seconds=15)
    assert codes == [code] * WORLD
    one_line(said, words, tmp_path)
    folder = tmp_path / "failures/00000002"
    assert "Traceback" in (folder / "rank-00001.txt").read_text()
    for rank in range(WORLD):
        assert "Current thread" in (folder / f"stacks-{rank:05d}.txt").read_text()


@pytest.mark.parametrize("work", [WAITS, FOLLOWS])
def test_a_killed_rank_is_named_by_the_others(ranks, tmp_path, work):
    run = ranks(work)
    run.processes[1].kill()
    codes, said = run.end(seconds=20)
    assert codes == [1, -signal.SIGKILL, 1]
    one_line(said, "the process has ended without a word", tmp_path)


def test_a_stopped_rank_is_named_by_the_others(ranks, tmp_path):
    run = ranks(WAITS)
    os.kill(run.processes[1].pid, signal.SIGSTOP)
    for process in run.processes[::2]:
        process.wait(20)
    run.processes[1].kill()
    codes, said = run.end(seconds=5)
    assert codes == [1, -signal.SIGKILL, 1]
    one_line(said, "no heartbeat for", tmp_path)


def test_a_rank_that_hangs_is_named_with_the_stacks_of_all(ranks, tmp_path):
    codes, said = ranks(HANGS, least=2).end(seconds=20)
    assert codes == [1] * WORLD
    one_line(said, "no progress for", tmp_path)
    for rank in range(WORLD):
        stacks = (tmp_path / f"failures/00000002/stacks-{rank:05d}.txt").read_text()
        assert 'File "<string>", line' in stacks


def test_what_ranks_wait_for_is_written(ranks, tmp_path):
    codes, said = ranks(WAITS_FOR_ANOTHER, least=2, before=JOIN).end(seconds=20)
    assert codes == [1] * WORLD
    one_line(said, "no progress for", tmp_path)
    for rank in range(WORLD):
        file = tmp_path / f"failures/00000002/exchanges-{rank:05d}.json"
        recorded = json.loads(file.read_text())
        [progress] = recorded["progress"].values()
        asked = int(progress["last_enqueued_collective"])
        assert asked - int(progress["last_completed_collective"]) == int(rank != 1)
        assert recorded["last"][-1]["profiling_name"] == "gloo:all_reduce"
        assert recorded["last"][-1]["input_sizes"] == [[1 if rank == 1 else 7]]


def test_an_error_that_all_ranks_raise_alike_passes_through(ranks):
    codes, said = ranks(ALIKE).end(seconds=10)
    assert codes == [1] * WORLD  # of the interpreter
    assert said.count("RankError: x") == WORLD
