"""A real SLURM: the templates with the real training (look at the nodes, start, signal, save,
requeue, continue, crash, end), an array of runs, and jobs that prepare tiles."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.resilience.heartbeat import read_beat
from engine.training.metrics import read
from tests.commands import TINY
from tests.e2e import kills
from tests.e2e.test_killed_preparation import SOME_REJECTED, command, published

# The sources of the other test, made again here.
from tests.e2e.test_killed_preparation import manifest as manifest
from tests.e2e.test_killed_preparation import peaceful as peaceful
from tests.environment import environment
from tests.paths import PATIENCE, ROOT

STEPS = 24
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


def slurm_is_up() -> bool:
    """Whether a SLURM answers that has a free node."""
    if not all(map(shutil.which, ("sbatch", "srun", "scontrol", "sinfo"))):
        return False
    try:
        sinfo = subprocess.run(
            ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, timeout=20
        )
    except subprocess.TimeoutExpired:
        return False  # installed, but nobody answers
    return sinfo.returncode == 0 and any(state in sinfo.stdout for state in ("idle", "mix"))


pytestmark = pytest.mark.skipif(not slurm_is_up(), reason="no SLURM with a free node")


def state(job: str) -> str:
    """SLURM's word for where a job stands."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return next(
        (word.split("=")[1] for word in shown.split() if word.startswith("JobState=")), "GONE"
    )


def wait_for(what, log: Path, seconds: float = PATIENCE) -> None:
    """Wait until ``what()`` is true; fails with the job's log."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, log.read_text() if log.exists() else "the job wrote no log"
        time.sleep(0.2)


def start_now(job: str) -> None:
    """SLURM waits two minutes before it starts a requeued job again; not this time."""
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def submit(
    template: str,
    log: Path,
    *arguments,
    tasks: int = 2,
    folder: Path = ROOT,
    options: tuple[str, ...] = (),
    **variables,
):
    """Call sbatch from ``folder`` with the template; no GPUs, one core a task."""
    env = (
        environment()
        | {"VENV": str(Path(sys.executable).parents[1])}
        | {k: str(v) for k, v in variables.items()}
    )
    return subprocess.run(
        [
            "sbatch",
            "--parsable",
            "--nodes=1",
            f"--ntasks-per-node={tasks}",
            "--cpus-per-task=1",
            "--gpus-per-node=0",
            "--time=10",
            f"--output={log}",
            *options,
            str(ROOT / f"launch/slurm/{template}.sbatch"),
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env=env,
    )


@pytest.mark.slow
@pytest.mark.parametrize("template", ["one_node", "many_nodes"])
def test_signal_save_requeue_continue(template, shards, tmp_path):
    """USR1 to the tasks, as ``--signal=USR1@120`` sends it: exit 75, back into the queue, done at
    the second start."""
    run, log = tmp_path / "run", tmp_path / "job.log"
    sent = submit(
        template,
        log,
        "--set",
        f"skysense.data.shards={shards}",
        "--set",
        f"skysense.schedule.steps={STEPS}",
        RUN_DIR=run,
        CONFIG=TINY,
    )
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    try:
        wait_for(lambda: (run / "metrics.jsonl").exists() and len(read(run)) >= 2, log)
        subprocess.run(["scancel", "--signal=USR1", job], check=True)
        wait_for(lambda: state(job) == "PENDING", log)
        [saved] = (run / "checkpoints").glob("step-*/manifest.json")
        before = len(read(run))
        assert 2 <= before < STEPS and saved.parent.name == f"step-{before:08d}"
        start_now(job)
        wait_for(lambda: state(job) in ENDED, log)
        assert state(job) == "COMPLETED", log.read_text()
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    said = log.read_text()  # both starts: the log is appended to
    assert said.count("preflight of 1 nodes, 2 ranks | matrix product") == 2
    assert "all-to-all within a node" in said
    assert "saved after a signal: back into the queue" in said
    assert f"continuing from {saved.parent} at step {before}" in said
    assert [record["step"] for record in read(run)] == list(range(STEPS))


@pytest.mark.slow
def test_a_killed_rank_brings_the_job_back(shards, tmp_path):
    """The verdict names the lost rank; the second start goes on from the last checkpoint."""
    run, log = tmp_path / "run", tmp_path / "job.log"
    words = ("--set", f"skysense.data.shards={shards}", "--set", "skysense.checkpoint.every=3")
    words += ("--set", f"skysense.schedule.steps={STEPS}", "--set", "skysense.watchdog.silence=10")
    sent = submit("one_node", log, *words, RUN_DIR=run, CONFIG=TINY, PREFLIGHT=0)
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    try:
        wait_for(lambda: (run / "checkpoints/step-00000003/manifest.json").exists(), log)
        os.kill(read_beat(run / "heartbeats", 1).pid, signal.SIGKILL)
        wait_for(lambda: state(job) == "PENDING", log)
        [verdict] = (run / "failures").glob("*/verdict.json")
        assert json.loads(verdict.read_text())["kind"] == "lost"
        start_now(job)
        wait_for(lambda: state(job) in ENDED, log)
        assert state(job) == "COMPLETED", log.read_text()
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    said = log.read_text()
    assert ", 1 of at most 3 times without a new checkpoint: back into the queue" in said
    assert "continuing from " in said
    assert [record["step"] for record in read(run)] == list(range(STEPS))


def test_a_job_that_never_gets_further_is_given_up(tmp_path):
    """Two starts after the first one, and then no more."""
    log = tmp_path / "job.log"
    script = tmp_path / "fails.py"
    script.write_text("raise SystemExit(1)\n")
    sent = submit(
        "one_node", log, tasks=1, RUN_DIR=tmp_path / "run", SCRIPT=script, PREFLIGHT=0, RETRIES=2
    )
    job = sent.stdout.strip()
    try:
        for failures in (1, 2):
            line = f"{failures} of at most 2 times without a new checkpoint: back into the queue"
            wait_for(lambda line=line: log.exists() and line in log.read_text(), log)
            wait_for(lambda: state(job) == "PENDING", log)
            start_now(job)
        wait_for(lambda: state(job) == "FAILED", log)
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    assert "error: failed 3 times without a new checkpoint" in log.read_text()


def test_a_bad_node_is_excluded_from_the_requeued_job(tmp_path):
    """The job is told that it has two nodes, for of one alone none is excluded."""
    node = subprocess.run(["hostname", "-s"], capture_output=True, text=True).stdout.strip()
    (tmp_path / "bad_nodes").write_text(f"{node}\n")
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\nset -euo pipefail\nSTARTED=0 RETRIES=3 SLURM_NNODES=2\n"
        f"RUN_DIR={tmp_path}/run\nsource {ROOT}/launch/slurm/leave.sh\n"
        f"leave 1 {tmp_path}/bad_nodes\n"
    )
    words = ["sbatch", "--parsable", "--requeue", "--time=5", f"--output={tmp_path}/job.log"]
    sent = subprocess.run([*words, script], capture_output=True, text=True, check=True)
    job = sent.stdout.strip()

    def excluded() -> bool:
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True)
        return f"ExcNodeList={node}" in shown.stdout

    try:
        wait_for(excluded, tmp_path / "job.log", seconds=60)
        assert state(job) in ("PENDING", "COMPLETING")
    finally:
        subprocess.run(["scancel", job], capture_output=True)


def test_the_preflight_ends_a_job_without_its_shards(tmp_path):
    log, run = tmp_path / "job.log", tmp_path / "run"
    words = ("--set", f"skysense.data.shards={tmp_path}/none", "--set", "skysense.ep_size=1")
    sent = submit("one_node", log, *words, tasks=1, RUN_DIR=run, CONFIG=TINY)
    job = sent.stdout.strip()
    try:
        wait_for(lambda: state(job) in ENDED, log)
        assert state(job) == "FAILED"
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    lines = [line for line in log.read_text().splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and lines[0].startswith("error: shards: "), log.read_text()
    assert not (run / "metrics.jsonl").exists()


@pytest.mark.slow
def test_an_array_makes_a_run_of_each_configuration(shards, tmp_path):
    for seed in (1, 2):
        settings = {"skysense": {"base": str(TINY), "seed": seed, "ep_size": 1}}
        (tmp_path / f"seed_{seed}.json").write_text(json.dumps(settings))
    sent = submit(
        "ablations",
        tmp_path / "job-%a.log",
        "--set",
        f"skysense.data.shards={shards}",
        "--stop_at",
        1,
        tasks=1,
        options=("--array=0-2",),
        CONFIGS=f"{tmp_path}/seed_*.json",
        RUNS=tmp_path / "runs",
    )
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    try:
        for index, ending in enumerate(("COMPLETED", "COMPLETED", "FAILED")):
            log = tmp_path / f"job-{index}.log"
            wait_for(lambda index=index: state(f"{job}_{index}") in ENDED, log)
            assert state(f"{job}_{index}") == ending, log.read_text()
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    for seed in (1, 2):
        config = json.loads((tmp_path / f"runs/seed_{seed}/config.json").read_text())
        assert config["skysense"]["seed"] == seed
        assert len(read(tmp_path / f"runs/seed_{seed}")) == 1
    assert (
        "no file 2 (counted from 0) among the 2 of CONFIGS" in (tmp_path / "job-2.log").read_text()
    )


def test_a_wrong_folder_is_said_at_once(tmp_path):
    log = tmp_path / "job.log"
    sent = submit("one_node", log, tasks=1, folder=tmp_path)
    wait_for(lambda: state(sent.stdout.strip()) == "FAILED", log)
    assert "call sbatch from the repository root" in log.read_text()


def test_a_job_of_workers_that_ends_early_is_replaced(manifest, peaceful, tmp_path):
    """One job alone: without another in its place the run would not end."""
    out = tmp_path / "archive"
    logs = tmp_path / "logs"
    options = ("--slurm_memory", "1GB", "--slurm_logs", logs)
    process = kills.start(*command(manifest, out, "--slurm", "--workers", 1, *options))
    kills.wait_for(kills.reaches(lambda: published(out), 3), process)
    [log] = logs.glob("*.err")
    subprocess.run(["scancel", log.stem.rpartition("-")[2]], check=True)
    kills.finish(process, SOME_REJECTED)
    assert len(list(logs.glob("*.err"))) == 2
    assert kills.tree(out) == peaceful
