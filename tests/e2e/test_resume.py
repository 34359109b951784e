"""A run that stopped and went on equals the run that never stopped, bit for bit."""

import json
import re

from engine.training.metrics import read
from tests.commands import pretrain
from tests.e2e.conftest import held_out

STEPS = 6
STOP = STEPS // 2
HISTORY = ("attempt", "parent", "config", "health")  # in state.json: how the run came here
TIMING = {"time", "seconds", "samples_per_second", "data_wait"}
STEP_LINE = re.compile(r"step \d/6  loss \d+\.\d{4} \((\d+ of )?\d+ terms, mean \d+\.\d{4}\)  ")


def contents(folder):
    """The bytes of every file of a checkpoint, but for the manifest, which has their checksums, and
    what tells of the run's history."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    content = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    del content["manifest.json"]
    state = json.loads(content["state.json"])
    content["state.json"] = {name: x for name, x in state.items() if name not in HISTORY}
    return content


def without_timing(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in TIMING}


def log_of(shards, run_dir, *arguments) -> str:
    """The standard output of a training that succeeds."""
    done = pretrain(2, shards, run_dir, *held_out(shards), *arguments)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_stop_and_go_equals_one_run(shards, run_on_two, tmp_path):
    whole = run_on_two.folder
    parts = tmp_path / "parts"
    first_log = log_of(shards, parts, "--stop_at", STOP)
    assert [record["step"] for record in read(parts)] == [0, 1, 2]
    # One hundredth of a second is over after every step, so each is saved.
    often = ["--set", "skysense.checkpoint.minutes=0.00016"]
    second_log = log_of(shards, parts, "--resume", *often)

    # The log says what a step measured, where checkpoints are, and why the run ended.
    assert len(STEP_LINE.findall(first_log)) == STOP
    assert f"checkpoint of step 3: {parts}/checkpoints/step-00000003" in first_log
    assert "run ended after 3 of 6 steps: the step of --stop_at is reached" in first_log
    assert f"continuing from {parts}/checkpoints/step-00000003 at step 3" in second_log
    assert f"checkpoint of step 5: {parts}/checkpoints/step-00000005" in second_log
    assert f"checkpoint of step 6: {parts}/checkpoints/step-00000006" in second_log
    assert "run ended after 6 of 6 steps: all steps are made (exit code 0)" in second_log

    name = f"checkpoints/step-{STEPS:08d}"
    expected = contents(whole / name)
    resumed = contents(parts / name)
    assert expected.keys() == resumed.keys()
    assert {"master/rank-00001.safetensors", "ema/rank-00001.safetensors"} < expected.keys()
    for file in expected:
        assert expected[file] == resumed[file], file
    # Equal losses at every step mean equal batches: the samples, views and frames drawn after the
    # restart too.
    for a, b in zip(read(whole), read(parts), strict=True):
        assert without_timing(a) == without_timing(b)
