"""The measured step through the real command: what it reports of real steps, and what it leaves
alone."""

import json
import math
import subprocess

import pytest

from engine.config.load import load
from engine.cost.count import step_flops
from engine.profile.trace import OTHER, read_trace
from tests import nursery
from tests.commands import TINY, copy_tree, skysense
from tests.dist.processes import free_port
from tests.e2e.test_bad_input import errors
from tests.environment import BIN, environment
from tests.paths import PATIENCE, ROOT

PARTS = [
    "data",
    "inputs",
    "student",
    "teacher",
    "losses",
    "vote",
    "backward",
    "optimizer",
    "teacher's average",
    "prototypes, centres",
    "report",
]
TERMS = {"total", "qsacl", "ita", "moe_balance"} | {
    f"mgcl/{feature}/{level}"
    for feature in ("hr", "ms", "sar", "fused")
    for level in ("pixel", "object", "image")
}


def one(*arguments):
    """The command in this process alone."""
    return skysense(
        "step",
        "--deepspeed_config",
        TINY,
        "--set",
        "skysense.ep_size=1",
        *arguments,
    )


def two(*arguments):
    """The command on two ranks of DeepSpeed's launcher."""
    command = [
        str(BIN / "deepspeed"),
        "--num_gpus",
        "2",
        "--master_port",
        str(free_port()),
        "--module",
        "launch",
        "step",
        "--config",
        str(TINY),
        *map(str, arguments),
    ]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )


def tree(folder):
    """Every file's content by name."""
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def check(found, ranks, steps, warmup):
    """What must hold of every report of a run that trained."""
    training, timed, traced, flops = (
        found[name] for name in ("training", "step_seconds", "traced_step", "flops")
    )
    assert found["hardware"]["ranks"] == ranks and found["hardware"]["type"] == "float32"
    assert found["counts"]["timed"] == steps and found["counts"]["warmup"] == warmup
    assert training["applied"] == training["steps"] == steps and training["finite"]
    assert len(training["losses"]) == steps and all(
        math.isfinite(loss) and loss > 0 for loss in training["losses"]
    )
    assert set(training["last_terms"]) == TERMS
    assert len(timed["all"]) == steps and 0 < timed["min"] <= timed["median"] <= timed["max"]
    batch = found["counts"]["batch"]
    assert found["samples_per_second"] == pytest.approx(batch / timed["median"])
    assert all(
        0 <= wait < step for wait, step in zip(found["data_wait"]["all"], timed["all"], strict=True)
    )
    assert list(traced["parts"]) == [*PARTS, OTHER]
    assert sum(traced["parts"].values()) == pytest.approx(traced["seconds"])
    assert traced["parts"][OTHER] < 0.5 * traced["seconds"]  # the named parts hold most of the step
    assert all(traced["parts"][name] > 0 for name in PARTS)
    assert traced["busy_share"] is None
    expected = step_flops(load(TINY, ["skysense.data.shards=none"]).settings)
    assert flops["sample_model"] == expected.model and flops["sample_hardware"] == expected.hardware
    assert flops["per_second"] == pytest.approx(batch * expected.model / timed["median"])
    assert (
        flops["mfu"] == pytest.approx(flops["per_second"] / flops["matmul"]["per_second"])
        and 0 < flops["mfu"] < 1
    )
    assert len(flops["matmul"]["ranks"]) == ranks
    assert (
        found["memory"]["resident"] > 4 * 4 * found["counts"]["parameters"] / ranks
    )  # float32, gradients, moments
    assert {"aten::mm", "aten::addmm"} <= {row["name"] for row in found["operators"]}
    assert sum(row["share"] for row in found["operators"]) < 1


@pytest.mark.slow
def test_one_process_beside_a_run(shards, run_alone, tmp_path):
    """On the output stands one object and nothing else; the folder of a run that has checkpoints
    stays as it was."""
    run = copy_tree(run_alone.folder, tmp_path / "run")
    before = tree(run)
    done = one(
        "--set",
        f"skysense.data.shards={shards}",
        "--set",
        f"skysense.run_dir={run}",
        "--steps",
        3,
        "--warmup",
        1,
        "--json",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    check(found, ranks=1, steps=3, warmup=1)
    assert found["configuration"].startswith("tiny.json skysense.ep_size=1")
    assert len(found["traced_step"]["communication"]["ranks"]) == 1  # exchanges with itself
    assert tree(run) == before and list(tmp_path.iterdir()) == [run]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {name.removeprefix("loss/") for name in metrics[0] if name.startswith("loss/")} | {
        "total"
    } == TERMS


@pytest.mark.slow
def test_two_ranks_through_the_launcher(shards, tmp_path):
    out, plot, traces = tmp_path / "step.json", tmp_path / "step.png", tmp_path / "traces"
    done = two(
        "--set",
        f"skysense.data.shards={shards}",
        "--steps",
        2,
        "--warmup",
        2,
        "--json",
        out,
        "--plot",
        plot,
        "--trace",
        traces,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(out.read_text())
    check(found, ranks=2, steps=2, warmup=2)
    exchange = found["traced_step"]["communication"]
    assert 0 < exchange["seconds"] < found["traced_step"]["seconds"] and all(
        rank > 0 for rank in exchange["ranks"]
    )
    assert done.stdout.count("Measured training step: tiny.json") == 1
    assert f"{100 * found['flops']['mfu']:.1f} % (MFU)" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in traces.iterdir()) == [
        "step-rank-00000.json",
        "step-rank-00001.json",
    ]
    kept = [read_trace(path) for path in sorted(traces.iterdir())]
    assert [trace.communication for trace in kept] == exchange["ranks"]
    events = json.loads((traces / "step-rank-00000.json").read_text())["traceEvents"]
    assert sum(event["name"] == "gloo:all_to_all" for event in events) > 0  # the experts' exchange
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step.json", "step.png", "traces"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["--set", "gradient_cliping=1.0"],
            ["gradient_cliping", 'did you mean "gradient_clipping"'],
        ),
        (["--steps", "0"], ["--steps", "at least 1", "0"]),
        (
            ["--steps", "20"],
            [
                "skysense.schedule.steps",
                "at least 25",
                "found 6",
                "--set skysense.schedule.steps=25",
            ],
        ),
        (["--plot", "nowhere/step.png"], ["--plot", "nowhere/step.png"]),
    ],
)
def test_wrong_input_alone(tmp_path, arguments, words):
    done = one("--set", f"skysense.data.shards={tmp_path}", "--json", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    [line] = errors(done)
    for word in words:
        assert word in line


def test_wrong_input_on_two_ranks(tmp_path):
    words = ["-m", "tests.ranks", 2, "-m", "launch", "step", "--config", TINY]
    words += ["--set", f"skysense.data.shards={tmp_path / 'nowhere'}"]
    words += ["--steps", 1, "--warmup", 1, "--json", tmp_path / "step.json"]
    done = nursery.run(words, timeout=PATIENCE)
    assert done.returncode == 2
    [line] = errors(done)
    assert str(tmp_path / "nowhere") in line
    assert list(tmp_path.iterdir()) == []
