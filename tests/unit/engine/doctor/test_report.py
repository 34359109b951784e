"""What the doctor says, against the libraries themselves, and how it leaves."""

import importlib.metadata
import json
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.utils.cpp_extension
from deepspeed.ops.op_builder.all_ops import ALL_OPS
from deepspeed.runtime.engine import DeepSpeedEngine

from engine.config.load import load
from engine.doctor import machine, packages
from engine.doctor.fact import ACTIVE, MISSING, OFF
from engine.doctor.needs import choices, needs
from engine.doctor.report import banner, doctor_command
from models.kernels.dispatch import KERNELS
from tests.commands import TINY, skysense

OPTIONS = (
    "tutel.moe",
    "tutel_custom_kernel",
    "apex.normalization",
    "fused_layer_norm_cuda",
    "amp_C",
)


@pytest.fixture(autouse=True)
def without_options(monkeypatch):
    """Neither Tutel nor Apex, whatever is installed here."""
    for name in OPTIONS:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("SKYSENSE_KERNELS", raising=False)


def configured(*overrides, shards="nowhere"):
    return load(TINY, [f"skysense.data.shards={shards}", *overrides], world_size=2)


def named(facts):
    return {fact.name: fact for fact in facts}


def test_the_report_names_versions_kernels_and_limits():
    facts = named([*machine.machine(), *packages.packages()])
    assert torch.__version__ in facts["torch"].reason
    assert importlib.metadata.version("deepspeed") in facts["DeepSpeed"].reason
    assert importlib.metadata.version("open_clip_torch") in facts["open_clip"].reason
    assert {f"kernel {name}" for name in KERNELS} <= facts.keys()
    assert facts["Tutel"].state == facts["Apex FusedLayerNorm"].state == MISSING
    assert facts["GPU"].state == (ACTIVE if torch.cuda.is_available() else MISSING)
    assert all(
        fact.state in (ACTIVE, OFF, MISSING) and fact.reason and "\n" not in fact.line()
        for fact in facts.values()
    )
    # Whatever is missing, there is something to do about it.
    assert all(fact.advice for fact in facts.values() if fact.state == MISSING)


def test_every_op_of_deepspeeds_report_is_read():
    assert packages.op_table().keys() == ALL_OPS.keys()


def test_without_compilers_the_ops_are_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(
        packages,
        "op_table",
        lambda: {
            "fused_adam": packages.OpState(built=False, compatible=True),
            "deepspeed_shm_comm": packages.OpState(built=True, compatible=True),
        },
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert machine.compilers().reason == "no c++ and no ninja on PATH"
    assert packages.op_obstacle("fused_adam") == machine.compilers().reason
    assert packages.op_obstacle("deepspeed_shm_comm") is None  # built: nothing is compiled
    facts = named(needs(configured("optimizer.params.torch_adam=false"), ranks=2, local_ranks=2))
    assert (
        facts["op fused_adam"].state == MISSING
        and "torch_adam=true" in facts["op fused_adam"].advice
    )


@pytest.mark.skipif(torch.version.cuda is None, reason="needs torch's CUDA build")
def test_a_cuda_toolkit_that_cannot_compile_for_torch_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.utils.cpp_extension, "CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CPATH", raising=False)
    assert machine._toolkit_obstacle() == f"no nvcc, CUDA_HOME is {tmp_path}"
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    for release in ("9.2", torch.version.cuda):
        nvcc.write_text(
            f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n"
        )
        nvcc.chmod(0o755)
        if release == "9.2":
            assert (
                machine._toolkit_obstacle()
                == f"{nvcc} is of CUDA 9.2, torch of {torch.version.cuda}"
            )
    assert machine._toolkit_obstacle().startswith(
        f"no cusparse.h, cublas_v2.h, cusolverDn.h in {tmp_path}/include"
    )
    for name in machine.HEADERS:
        (tmp_path / "include").mkdir(exist_ok=True)
        (tmp_path / "include" / name).touch()
    assert machine._toolkit_obstacle() is None


@pytest.mark.parametrize(
    "params, said",
    [
        ({"torch_adam": False}, "DeepSpeed's FusedAdam"),
        ({"torch_adam": True}, "torch's AdamW, not fused"),
        ({"torch_adam": True, "fused": True}, "torch's fused AdamW"),
    ],
)
def test_the_optimizer_is_the_one_that_deepspeed_takes(params, said):
    config = configured(
        *(f"optimizer.params.{name}={json.dumps(value)}" for name, value in params.items())
    )
    given = dict(config.deepspeed["optimizer"]["params"])
    engine = SimpleNamespace(zero_use_cpu_optimizer=lambda: False)  # nothing is offloaded here
    chosen, more = DeepSpeedEngine.get_optimizer_configuration(engine, given, True)
    assert named(choices(config))["optimizer"].reason == said
    assert (chosen is torch.optim.AdamW) == said.startswith("torch's")
    if chosen is torch.optim.AdamW:  # with what DeepSpeed left of the parameters
        optimizer = chosen([torch.nn.Parameter(torch.ones(1))], **given, **more)
        assert bool(optimizer.defaults["fused"]) == ("fused AdamW" in said)


@pytest.mark.parametrize(
    "override, name, advice",
    [
        (
            "skysense.model.moe.implementation=tutel",
            "experts",
            "skysense.model.moe.implementation=deepspeed",
        ),
        ("skysense.layer_norm=apex", "layer norm", "skysense.layer_norm=torch"),
        ("skysense.text.weights=/nowhere.pt", "text tower", "skysense.text.weights"),
    ],
)
def test_what_is_asked_for_and_not_here_is_missing(override, name, advice):
    assert named(needs(configured(), ranks=2, local_ranks=2))[name].state != MISSING
    facts = named(needs(configured(override), ranks=2, local_ranks=2))
    assert all(fact.advice for fact in facts.values() if fact.state == MISSING)
    fact = facts[name]
    assert fact.state == MISSING and advice in fact.advice


def test_limits_are_compared_with_the_need():
    assert machine.shared_memory(0, "for nothing").state == machine.open_files(1).state == ACTIVE
    assert (
        machine.shared_memory(2**60, "for a test").state
        == machine.open_files(2**61).state
        == MISSING
    )


def test_shared_memory_grows_with_the_cpu_ranks_of_a_machine():
    needed = []
    for ranks in (1, 4):
        facts = named(needs(configured(), ranks=4, local_ranks=ranks))
        needed.append(float(facts["/dev/shm"].reason.split(", ")[1].split()[0]))
    assert needed == pytest.approx([0.06, 0.26])


def test_a_training_says_it_in_two_lines():
    machine_line, paths = banner(configured())
    assert machine_line.startswith("machine: GPU ") and torch.__version__ in machine_line
    assert (
        paths.startswith("paths: optimizer: torch's AdamW")
        and "experts: DeepSpeed's layer, ep_size 2" in paths
    )


def test_a_run_that_can_start_passes(shards):
    diagnosis = doctor_command(TINY, [f"skysense.data.shards={shards}"], ranks=2)
    assert diagnosis.error is None
    report = json.loads(json.dumps(diagnosis.record()))
    assert list(report) == ["machine", "packages", str(TINY)]
    assert {fact["name"]: fact["state"] for fact in report[str(TINY)]}["shards"] == ACTIVE


def test_the_command_says_one_line_of_what_is_missing(tmp_path):
    done = skysense(
        "doctor",
        "--deepspeed_config",
        TINY,
        "--set",
        f"skysense.data.shards={tmp_path}",
        "--set",
        "skysense.text.weights=/nowhere.pt",
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(errors) == 1
    assert errors[0].startswith(f"error: {TINY}: text tower: no file /nowhere.pt")
    assert "also missing: shards" in errors[0]
    assert "  DeepSpeed  " in done.stdout and "Traceback" not in done.stderr
