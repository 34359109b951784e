"""A real SLURM: the templates with the real training (start, signal, save, requeue, continue, end),
and jobs that prepare tiles."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.training.metrics import read
from tests.commands import ROOT, TINY, environment
from tests.e2e import kills
from tests.e2e.test_killed_preparation import SOME_REJECTED, command, published

# The sources of the other test, made again here.
from tests.e2e.test_killed_preparation import manifest as manifest
from tests.e2e.test_killed_preparation import peaceful as peaceful

STEPS = 24


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


def wait_for(what, log: Path, seconds: float = 180) -> None:
    """Wait until ``what()`` is true; fails with the job's log."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, log.read_text() if log.exists() else "the job wrote no log"
        time.sleep(0.2)


def submit(template: str, log: Path, *arguments, tasks: int = 2, folder: Path = ROOT, **variables):
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
        # SLURM waits two minutes before it starts a requeued job again
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
        wait_for(lambda: state(job) in ("COMPLETED", "FAILED", "CANCELLED"), log)
        assert state(job) == "COMPLETED", log.read_text()
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    said = log.read_text()  # both starts: the log is appended to
    assert "saved after a signal: back into the queue" in said
    assert f"continuing from {saved.parent} at step {before}" in said
    assert [record["step"] for record in read(run)] == list(range(STEPS))


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
