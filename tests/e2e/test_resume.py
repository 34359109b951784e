"""A run that stopped and went on equals the run that never stopped, bit for bit."""

import json
import re

import torch
from safetensors.torch import load_file

from engine.training.metrics import read
from tests.commands import pretrain
from tests.e2e.conftest import held_out

STEPS = 6
STOP = STEPS // 2
HISTORY = ("attempt", "parent", "config", "health")  # in state.json: how the run came here
TIMING = {"time", "seconds", "samples_per_second", "data_wait"}
STEP_LINE = re.compile(r"step \d/6  loss \d+\.\d{4} \((\d+ of )?\d+ terms, mean \d+\.\d{4}\)  ")


def same(a, b) -> bool:
    """Equality of nested objects, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a) is not type(b):
        return False
    return a == b or (hasattr(a, "__dict__") and same(vars(a), vars(b)))


def contents(folder):
    """All state of a checkpoint by file name, read back."""
    state = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            state[name] = load_file(path)
        elif path.suffix == ".json":
            state[name] = json.loads(path.read_text())
        else:
            state[name] = torch.load(path, weights_only=False)
    del state["manifest.json"]
    for name in HISTORY:
        del state["state.json"][name]
    return state


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
    second_log = log_of(shards, parts, "--resume")

    # The log says what a step measured, where checkpoints are, and why the run ended.
    assert len(STEP_LINE.findall(first_log)) == STOP
    assert f"checkpoint of step 3: {parts}/checkpoints/step-00000003" in first_log
    assert "run ended after 3 of 6 steps: the step of --stop_at is reached" in first_log
    assert f"continuing from {parts}/checkpoints/step-00000003 at step 3" in second_log
    assert f"checkpoint of step 6: {parts}/checkpoints/step-00000006" in second_log
    assert "run ended after 6 of 6 steps: all steps are made (exit code 0)" in second_log

    name = f"checkpoints/step-{STEPS:08d}"
    expected = contents(whole / name)
    resumed = contents(parts / name)
    assert expected.keys() == resumed.keys()
    assert any("optim_states" in file for file in expected)
    assert any("ema" in file for file in expected)
    for file in expected:
        assert same(expected[file], resumed[file]), file
    # Equal losses at every step mean equal batches: the samples, views and frames drawn after the
    # restart too.
    for a, b in zip(read(whole), read(parts), strict=True):
        assert without_timing(a) == without_timing(b)


def test_comparison_notices_one_bit(tmp_path):
    x = torch.ones(3)
    assert same({"a": [x]}, {"a": [x.clone()]})
    assert not same({"a": [x]}, {"a": [x.nextafter(torch.tensor(2.0))]})
