"""When a SLURM job goes back into the queue. ``scontrol`` is a script that notes its words."""

import json
import os
import subprocess

import pytest

from tests.environment import BIN
from tests.paths import ROOT

SCRIPT = f'set -euo pipefail; source {ROOT}/launch/slurm/leave.sh; leave "$@"'


@pytest.fixture
def leave(tmp_path):
    """Calls ``leave CODE``; the exit code, what it said, and the calls of scontrol."""
    run_dir = tmp_path / "my run"
    calls = tmp_path / "calls"
    scontrol = tmp_path / "scontrol"
    shown = tmp_path / "shown"  # what SLURM says of the job
    shown.write_text("JobId=7 ReqNodeList=(null) ExcNodeList=(null)\n")
    note = f'case $1 in show) cat "{shown}";; *) echo "$@" >>"{calls}";; esac'
    scontrol.write_text(f"#!/bin/bash\n{note}\n")
    scontrol.chmod(0o755)

    def call(code: int, nodes: int = 1, *words: str) -> tuple[int, str, list[str]]:
        calls.write_text("")
        variables = {
            "PATH": f"{tmp_path}:{BIN}:{os.environ['PATH']}",
            "RUN_DIR": str(run_dir),
            "RETRIES": "2",
            "STARTED": "0",
            "SLURM_JOB_ID": "7",
            "SLURM_NNODES": str(nodes),
        }
        done = subprocess.run(
            ["bash", "-c", SCRIPT, "leave", str(code), *words],
            env=variables,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()

    call.run_dir = run_dir
    call.shown = shown
    return call


def checkpoint(run_dir, step: int) -> None:
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()


@pytest.mark.parametrize("code", [0, 2, 3])
def test_what_another_start_cannot_help_ends_the_job(leave, code):
    assert leave(code) == (code, "", [])


def test_a_save_after_a_signal_goes_back_for_ever(leave):
    for _ in range(5):
        code, _, calls = leave(75)
        assert (code, calls) == (75, ["requeue 7"])


@pytest.mark.parametrize("code", [1, 134, 137, 143])
def test_failures_without_progress_are_counted(leave, code):
    assert [leave(code)[2] for _ in range(4)] == [["requeue 7"], ["requeue 7"], [], []]
    assert "failed 5 times without a new checkpoint" in leave(code)[1]


def test_a_new_checkpoint_begins_the_count_anew(leave):
    calls = []
    for step in range(1, 7):
        calls.append(leave(1)[2])
        checkpoint(leave.run_dir, step)
    assert calls == 6 * [["requeue 7"]]
    unfinished = leave.run_dir / "checkpoints/step-00000099"  # without a manifest: none
    unfinished.mkdir()
    assert [leave(1)[2] for _ in range(3)] == [["requeue 7"], ["requeue 7"], []]


@pytest.mark.parametrize(
    "kind, excluded", [("lost", True), ("stuck", True), ("faulty", True), ("error", False)]
)
def test_a_node_that_is_named_is_kept_away_if_there_are_others(leave, kind, excluded):
    failures = leave.run_dir / "failures/00000001"
    failures.mkdir(parents=True)
    (failures / "verdict.json").write_text(json.dumps({"kind": kind, "host": "node-7.cluster"}))
    expected = ["requeue 7"]
    assert leave(1, nodes=1)[2] == expected
    if excluded:
        expected.append("update JobId=7 ExcNodeList=node-7")
    assert leave(1, nodes=4)[2] == expected


def test_nodes_that_the_preflight_names_join_those_that_are_excluded(leave, tmp_path):
    named = tmp_path / "bad_nodes"
    named.write_text("node-3,node-4\n")
    update = "update JobId=7 ExcNodeList="
    assert leave(1, 4, str(named))[2] == ["requeue 7", f"{update}node-3,node-4"]
    leave.shown.write_text("JobId=7 ReqNodeList=(null) ExcNodeList=node-[1-2] NumNodes=4\n")
    assert leave(1, 4, str(named))[2] == ["requeue 7", f"{update}node-[1-2],node-3,node-4"]


def test_what_the_preflight_finds_on_all_nodes_ends_the_job(leave, tmp_path):
    assert leave(2, 4, str(tmp_path / "none")) == (2, "", [])
