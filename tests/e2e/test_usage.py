"""Trained by the real command: the examples of the documentation run, and the commands around
trained weights."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from engine.pretrained.source import read
from engine.pretrained.weights import load
from models.initialise import generator, truncated_normal
from tests.commands import skysense, trained
from tests.environment import environment
from tests.paths import ROOT


@pytest.fixture(scope="module")
def project(shards, run_on_two, tmp_path_factory):
    """A folder that looks like the project's after ``make demo``."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "runs/demo").mkdir(parents=True)
    (folder / "runs/demo/pretrain").symlink_to(run_on_two.folder)
    (folder / "runs/demo/archive").symlink_to(shards.parent / "archive")
    (folder / "data").mkdir()
    (folder / "data/samples").symlink_to(ROOT / "data/samples")
    return folder


def test_the_first_rank_says_once_which_path_each_kernel_took_and_why(run_on_two):
    lines = [line for line in run_on_two.log.splitlines() if "kernel " in line]
    assert lines and len(lines) == len(set(lines))
    assert {line.split()[1] for line in lines} >= {"window_attention:", "sinkhorn:", "head_loss:"}
    assert all("PyTorch (not asked for by SKYSENSE_KERNELS)" in line for line in lines)


def blocks(page: str) -> list[str]:
    """The Python blocks of a page of the documentation."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.M | re.S)


def test_the_examples_of_the_documentation_run_without_deepspeed(project):
    examples = blocks("usage.md")
    assert len(examples) >= 9
    code = (
        "\n".join(examples)
        + "\nimport sys\nassert 'deepspeed' not in sys.modules\nprint('all examples ran')\n"
    )
    (project / "examples.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "examples.py"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        done.stdout.endswith("all examples ran\n")
        and "tensors taken from the trained model" in done.stdout
    )


def test_export_and_its_refusals(project, tmp_path):
    run = project / "runs/demo/pretrain"
    done = skysense("export", run, "--out", tmp_path / "out", "--dtype", "bfloat16")
    assert done.returncode == 0, done.stderr
    assert "out: teacher of step 6," in done.stdout
    assert sorted(os.listdir(tmp_path / "out")) == ["model.safetensors", "spec.json"]
    described = json.loads((tmp_path / "out/spec.json").read_text())
    assert (
        described["sensors"]["sar"]["mean"] == [-12.55, -20.19]
        and len(described["regions"]["cells"]) == 16
    )
    refusals = [
        ([run, "--out", tmp_path / "out"], "which exists; choose another"),
        ([tmp_path, "--out", tmp_path / "new"], "expected a run folder with a complete checkpoint"),
        (
            [tmp_path / "out", "--out", tmp_path / "new", "--weights", "student"],
            "an export of the teacher",
        ),
        ([run, "--out", tmp_path / "a/b"], "expected a new folder in one that exists"),
    ]
    for arguments, line in refusals:
        done = skysense("export", *arguments)
        assert done.returncode == 2 and line in done.stderr and "Traceback" not in done.stderr, (
            done.stderr
        )
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".unfinished*"))


def test_a_damaged_checkpoint_is_not_exported(project, tmp_path):
    copy = tmp_path / "checkpoint"
    subprocess.run(
        ["cp", "-r", project / "runs/demo/pretrain/checkpoints/step-00000006", copy], check=True
    )
    file = copy / "ema/rank-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    done = skysense("export", copy, "--out", tmp_path / "out")
    assert (
        done.returncode == 2
        and "rank-00001.safetensors" in done.stderr
        and "is damaged" in done.stderr
    )


STILL = (
    "--set",
    "skysense.schedule.steps=1",
    "--set",
    "skysense.schedule.warmup=0",
    "--set",
    "optimizer.params.lr=1e-30",
    "--set",
    "skysense.schedule.final_lr=1e-30",
)


def test_training_starts_from_given_weights(project, shards, tmp_path):
    """One step at a learning rate of zero shows the first weights."""
    run = project / "runs/demo/pretrain"
    trained(
        1,
        shards,
        tmp_path / "next",
        *STILL,
        "--set",
        "skysense.ep_size=1",
        "--set",
        f"skysense.init.path={run}",
    )
    before, after = read(run).state, read(tmp_path / "next", "student").state
    assert before.keys() == after.keys()
    for name, x in before.items():
        if name != "trunk.context.prototypes":  # these moved with the step
            torch.testing.assert_close(after[name], x, rtol=0, atol=1e-7, msg=name)


def test_one_random_expert_becomes_the_plain_network_of_another_run(project, shards, tmp_path):
    run = project / "runs/demo/pretrain"
    trained(
        1,
        shards,
        tmp_path / "dense",
        *STILL,
        "--set",
        "skysense.ep_size=1",
        "--set",
        "skysense.model.moe=null",
        "--set",
        f"skysense.init.path={run}",
        "--set",
        "skysense.init.expert=-1",
    )
    found = read(tmp_path / "dense", "student").state
    whole = read(run).state
    for block in ("stages.2.blocks.1", "stages.3.blocks.0", "stages.3.blocks.1"):
        weight = found[f"trunk.backbone.{block}.ffn.fc1.weight"]
        experts = [
            whole[
                f"trunk.backbone.{block}.ffn.layer.deepspeed_moe.experts.deepspeed_experts.{e}.fc1.weight"
            ]
            for e in range(8)
        ]
        assert sum(torch.allclose(weight, expert, rtol=0, atol=1e-7) for expert in experts) == 1


def test_a_fixed_gate_keeps_its_first_values_under_zero(shards, tmp_path):
    run = trained(
        2,
        shards,
        tmp_path / "fixed",
        "--set",
        "skysense.schedule.steps=2",
        "--set",
        "skysense.model.moe.fixed_gate=true",
        "--set",
        "optimizer.params.weight_decay=0.2",
    )
    state = read(run, "student").state
    gates = {name: x for name, x in state.items() if name.endswith(".gate.wg.weight")}
    assert len(gates) == 3
    for name, x in gates.items():
        first = torch.empty(x.shape)
        truncated_normal(first, generator(0, name))
        assert torch.equal(x, first), name
    other = "trunk.backbone.stages.3.blocks.0.attention.qkv.weight"
    first = torch.empty(state[other].shape)
    truncated_normal(first, generator(0, other))
    assert not torch.equal(state[other], first)


def test_random_weights_are_the_first_values_of_training(project):
    random, trained_model = (
        load(project / "runs/demo/pretrain", weights=kind) for kind in ("random", "teacher")
    )
    name = "backbone.stages.3.blocks.0.attention.qkv.weight"
    first = torch.empty(random.trunk.get_parameter(name).shape)
    truncated_normal(first, generator(0, f"trunk.{name}"))
    assert torch.equal(random.trunk.get_parameter(name), first)
    assert not torch.equal(trained_model.trunk.get_parameter(name), first)
    again = load(project / "runs/demo/pretrain", weights="random", seed=1).trunk.get_parameter(name)
    assert not torch.equal(again, first)
