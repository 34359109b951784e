"""Real commands that are really killed, and what they leave."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.environment import environment
from tests.paths import PATIENCE, ROOT


def start(*words) -> subprocess.Popen:
    """``skysense`` in a process group of its own, so that its workers can be killed with it."""
    return subprocess.Popen(
        [sys.executable, "-m", "launch", *map(str, words)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, status: int = 0) -> tuple[str, str]:
    """Wait for the end; returns (stdout, stderr)."""
    output = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, output
    return output


def kill_group(process: subprocess.Popen) -> bool:
    """SIGKILL to the command and all its workers; whether it was still running."""
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    return running


def kill_again_and_again(
    command: list, times: int, seed: int, progress: Callable[[], int], step: int
) -> list[int]:
    """Start the command and kill it, ``times`` times. Returns what ``progress()`` was right after
    each kill.

    Every other kill is at a random moment of the start; the others wait until ``progress()`` has
    grown by 1 to ``step``, and up to 20 ms more: the kills find the command wherever it is, and it
    comes forward only slowly."""
    rng, seen = random.Random(seed), []
    for kill in range(times):
        goal, process = progress() + rng.randint(1, step), start(*command)
        if kill % 2:
            wait_for(reaches(progress, goal), process)
            time.sleep(rng.uniform(0, 0.02))
        else:
            time.sleep(rng.uniform(0, 0.8))
        assert kill_group(process), f"it was done after {kill} kills"
        seen.append(progress())
    return seen


def kill_at_the_end(
    command: list, times: int, seed: int, last: tuple[str, ...], done: Callable[[], bool]
) -> int:
    """Start the command and kill it up to 10 ms after it has said one of ``last``, until ``done()``
    or ``times`` kills. Returns how many kills met it alive."""
    rng, kills = random.Random(seed), 0
    for _ in range(times):
        if done():
            break
        process = start(*command)
        assert any(text in line for line in process.stdout for text in last), process.stderr.read()
        time.sleep(rng.uniform(0, 0.01))
        kills += kill_group(process)
    return kills


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait until something holds that the running command brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the command hangs"
        time.sleep(0.002)


def reaches(progress: Callable[[], int], goal: int) -> Callable[[], bool]:
    """A condition: the progress has come to ``goal``."""
    return lambda: progress() >= goal


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path; empty folders too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"(folder)"
        for path in sorted(folder.rglob("*"))
    }


def kill_workers(
    process: subprocess.Popen, progress: Callable[[], int], goals: tuple[int, ...]
) -> None:
    """SIGKILL one worker each time the progress reaches a goal."""
    for goal in goals:
        wait_for(reaches(progress, goal), process)
        os.kill(children(process)[0], signal.SIGKILL)


def has_open(pid: int, file: Path) -> bool:
    """Whether a process has a file open."""
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    return str(file) in [os.path.realpath(descriptor) for descriptor in descriptors]


def children(process: subprocess.Popen) -> list[int]:
    """The workers that a command has started, the oldest first."""
    pids = []
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        pids += map(int, (thread / "children").read_text().split())
    return [
        pid
        for pid in sorted(pids)
        if b"data.jobs.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def stop_in_a_task(pid: int, journal: Path) -> None:
    """SIGSTOP a worker while it holds the lock of the journal."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        while Path(f"/proc/{pid}/stat").read_text().split()[2] != "T":
            time.sleep(0.001)
        if has_open(pid, journal):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.003)
