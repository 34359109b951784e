"""A weight that changes on one rank of a real run ends it before the next checkpoint."""

import json
import socket
import subprocess
import sys

import pytest

from engine.training.metrics import read
from tests.commands import TINY, trained
from tests.dist.processes import environment_of, free_port
from tests.paths import PATIENCE, ROOT

HURT = 4  # the step in which it happens
WORDS = (
    "skysense.compare_ranks_every=5",
    "skysense.checkpoint.every=3",
    "skysense.schedule.steps=8",
)
# The training, with a flaw in the memory of rank 1.
FLAWED = f"""
import os, sys, torch
from engine.training.step import Step
from launch import cli, pretrain
whole = Step.__call__
def flawed(step, batch):
    if batch.step == {HURT} and os.environ["RANK"] == "1":
        with torch.no_grad():
            step.student.text_projection.weight[0, 0] += 1e-3
    return whole(step, batch)
Step.__call__ = flawed
cli.run(pretrain.main)
"""


def options() -> list[str]:
    words = []
    for word in WORDS:
        words += ["--set", word]
    return words


@pytest.mark.slow
def test_a_changed_weight_ends_the_run_before_the_next_checkpoint(shards, tmp_path):
    run, port = tmp_path / "run", free_port()
    words = ["--config", TINY, "--run_dir", run, "--set", f"skysense.data.shards={shards}"]
    ranks = []
    for rank in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", FLAWED, *map(str, words), *options()],
            cwd=ROOT,
            env=environment_of(rank, 2, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ranks.append(process)
    errors = [rank.communicate(timeout=PATIENCE)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], errors
    lines = "".join(errors).splitlines()
    [line] = [line for line in lines if line.startswith("error:")]
    host = socket.gethostname()
    assert line.startswith(
        f"error: rank 1 on {host}, after {HURT} steps: the student's text_projection.weight is not "
        "what all ranks had after the last update; "
    )
    [verdict] = (run / "failures").glob("*/verdict.json")
    assert json.loads(verdict.read_text())["kind"] == "faulty"  # a batch file excludes the node
    saved = [path.parent.name for path in (run / "checkpoints").glob("step-*/manifest.json")]
    assert saved == ["step-00000003"]
    trained(2, shards, run, *options(), "--resume", "auto")
    assert [record["step"] for record in read(run)] == list(range(8))
