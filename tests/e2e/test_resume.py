"""A run that stopped and went on is the run that never stopped, bit for bit, through the real
command."""

import json

import torch
from safetensors.torch import load_file

from engine.training.metrics import read
from tests.commands import trained

STEPS = 6
TIMING = {"time", "seconds", "samples_per_second", "data_wait"}


def same(a, b) -> bool:
    """Equality of nested objects, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or hasattr(a, "__dict__") and same(vars(a), vars(b)))


def contents(folder):
    """All state of a checkpoint by file name, read back."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = load_file(path)
        elif path.suffix == ".json":
            found[name] = json.loads(path.read_text())
        else:
            found[name] = torch.load(path, weights_only=False)
    return found


def test_stop_and_go_equals_one_run(shards, tmp_path):
    whole = trained(2, shards, tmp_path / "whole")
    parts = trained(2, shards, tmp_path / "parts", "--stop_at", STEPS // 2)
    assert [record["step"] for record in read(parts)] == [0, 1, 2]
    trained(2, shards, parts, "--resume")

    name = f"checkpoints/step-{STEPS:08d}"
    a, b = contents(whole / name), contents(parts / name)
    assert (
        a.keys() == b.keys()
        and any("optim_states" in file for file in a)
        and any("ema" in file for file in a)
    )
    for file in a:
        assert same(a[file], b[file]), file
    # equal losses at every step mean equal batches: the samples, views and frames drawn after the
    # restart too
    for x, y in zip(read(whole), read(parts), strict=True):
        assert {k: v for k, v in x.items() if k not in TIMING} == {
            k: v for k, v in y.items() if k not in TIMING
        }


def test_comparison_notices_one_bit(tmp_path):
    x = torch.ones(3)
    assert same({"a": [x]}, {"a": [x.clone()]})
    assert not same({"a": [x]}, {"a": [x.nextafter(torch.tensor(2.0))]})
