"""Signals to the processes of a real run: it saves once and leaves nothing running."""

import os
import signal

import pytest

from tests.e2e.runs import Training, start

LONG = ("--set", "skysense.schedule.steps=500")


def to_the_command(run: Training) -> None:
    """As ``kill $!`` does."""
    os.kill(run.process.pid, signal.SIGTERM)


def to_the_group(run: Training) -> None:
    """As a batch system does."""
    os.killpg(run.process.pid, signal.SIGTERM)


def ctrl_c(run: Training) -> None:
    """As a terminal does."""
    os.killpg(run.process.pid, signal.SIGINT)


def hang_up(run: Training) -> None:
    """As a terminal does that is closed."""
    os.killpg(run.process.pid, signal.SIGHUP)


def kill_the_command(run: Training) -> None:
    """No process hears of it."""
    os.kill(run.process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("send", [to_the_command, to_the_group, ctrl_c, hang_up, kill_the_command])
def test_a_signal_saves_once_and_leaves_nothing_running(shards, tmp_path, send):
    run = start(2, shards, tmp_path / "run", *LONG, "--set", "skysense.data.workers=1")
    try:
        run.wait_for_steps(2)
        send(run)
        run.wait()
    finally:
        run.end()
    said = run.said
    steps = run.steps()
    [saved] = (run.run_dir / "checkpoints").glob("step-*/manifest.json")
    assert saved.parent.name == f"step-{steps:08d}" and steps < 500
    assert said.count("checkpoint of step") == 1
    assert f"run ended after {steps} of 500 steps: a signal asked for it" in said
