"""The SLURM templates on a real SLURM: start, signal, save, requeue, continue, end. Skipped where none is up."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands in for the training: it sums over ranks until told to leave, and continues from its own checkpoint.
PROBE = '''
import argparse, os, sys, time
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, os.environ["PROBE_ROOT"])
from engine.preempt import Preempt
from models.reducer import Reducer


class Ranks(Reducer):
    def max(self, x):
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return x


parser = argparse.ArgumentParser()
parser.add_argument("--deepspeed_config")
parser.add_argument("--run_dir", type=Path)
parser.add_argument("--resume")
parser.add_argument("--set", action="append")
options = parser.parse_args()
assert options.resume == "auto" and options.set == ["a=b c"], options
rank = int(os.environ["RANK"])
options.run_dir.mkdir(parents=True, exist_ok=True)
leave = Preempt(options.run_dir, rank)
dist.init_process_group("gloo")
assert dist.get_world_size() == int(os.environ["WORLD_SIZE"]) == int(os.environ["LOCAL_SIZE"])
saved = options.run_dir / "saved"
step = int(saved.read_text()) if saved.exists() else 0
continued = step > 0
code = None
while code is None and not (continued and step > 1000):
    total = torch.ones(1)
    dist.all_reduce(total)
    step += 1
    time.sleep(0.002)
    code = leave.vote(Ranks())
    if rank == 0 and step == 5:
        (options.run_dir / "running").touch()
if rank == 0:
    saved.write_text(str(max(step, 900) if not continued else step))
    print(f"{'continued' if continued else 'began'}, ends at {step} with {code} and {total.item():.0f} ranks")
dist.barrier()
leave.close()
sys.exit(code or 0)
'''


def slurm_is_up() -> bool:
    if not all(map(shutil.which, ("sbatch", "srun", "scontrol", "sinfo"))):
        return False
    try:
        sinfo = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return False  # installed, but nobody answers
    return sinfo.returncode == 0 and any(state in sinfo.stdout for state in ("idle", "mix"))


pytestmark = pytest.mark.skipif(not slurm_is_up(), reason="no SLURM with a free node")


def state(job: str) -> str:
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return next((word.split("=")[1] for word in shown.split() if word.startswith("JobState=")), "GONE")


def wait_for(what, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, log.read_text() if log.exists() else "the job wrote no log"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("template", ["one_node", "many_nodes"])
def test_signal_save_requeue_continue(template, tmp_path, monkeypatch):
    """USR1 to the tasks, as ``--signal=USR1@120`` sends it: exit 75, back into the queue, done at the second start."""
    script, run, log = tmp_path / "probe.py", tmp_path / "run", tmp_path / "job.log"
    script.write_text(PROBE)
    for name, value in {"SCRIPT": script, "RUN_DIR": run, "PROBE_ROOT": ROOT, "VENV": Path(sys.executable).parents[1],
                        "OMP_NUM_THREADS": 1}.items():
        monkeypatch.setenv(name, str(value))
    sent = subprocess.run(
        ["sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0",
         "--time=5", f"--output={log}", str(ROOT / f"launch/slurm/{template}.sbatch"), "--set", "a=b c"],
        capture_output=True, text=True, cwd=ROOT)
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    try:
        wait_for((run / "running").exists, log)
        subprocess.run(["scancel", "--signal=USR1", job], check=True)
        wait_for(lambda: state(job) == "PENDING", log)
        # SLURM waits two minutes before it starts a requeued job again
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
        wait_for(lambda: state(job) in ("COMPLETED", "FAILED", "CANCELLED"), log)
        assert state(job) == "COMPLETED", log.read_text()
    finally:
        subprocess.run(["scancel", job], capture_output=True)
    said = log.read_text()  # both starts: the log is appended to
    assert "began, ends at" in said and "with 75 and 2 ranks" in said
    assert "saved after a signal: back into the queue" in said
    assert "continued, ends at 1001 with None and 2 ranks" in said


def test_a_wrong_folder_is_said_at_once(tmp_path):
    log = tmp_path / "job.log"
    sent = subprocess.run(["sbatch", "--parsable", "--wait", "--ntasks-per-node=1", "--cpus-per-task=1",
                           "--gpus-per-node=0", f"--output={log}", str(ROOT / "launch/slurm/one_node.sbatch")],
                          capture_output=True, text=True, cwd=tmp_path, timeout=90)
    assert sent.returncode == 2
    assert "call sbatch from the repository root" in log.read_text()
