"""The packages: DeepSpeed and its ops, kernels, and optional libraries."""

import contextlib
import importlib
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import torch

from engine.doctor.fact import Fact, active, check, missing, off
from engine.doctor.machine import compiler_obstacle, device, has_gpu
from engine.errors import ConfigError
from models.kernels.dispatch import survey
from models.layer_norm import apex_obstacle

INSTALL = "run make install"
GUIDE = "docs/backends.md says how to install it"
GROUPED_CAPABILITY = 9  # major compute capability that torch's grouped_mm is used on
_ROW = re.compile(r"(\w+) \.* *\[(YES|NO)\] \.* *\[(OKAY|NO)\]")
_COLOUR = re.compile(r"\x1b\[\d*m")


def packages() -> list[Fact]:
    """Facts of this environment, in the order of the report.

    Raises:
        ModelError: a wrong SKYSENSE_KERNELS.
    """
    return [
        deepspeed(),
        *ops(),
        triton(),
        *kernels(),
        tutel(),
        *apex(),
        grouped_products(),
        optional(
            "open_clip",
            "open_clip_torch",
            purpose="text tower of the class names",
            advice="pip install open_clip_torch",
        ),
        optional("s3fs", "s3fs", purpose="shards at s3://", advice="pip install 'skysense-v2[s3]'"),
    ]


def version(package: str) -> str | None:
    """The version installed, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def deepspeed() -> Fact:
    """Whether the engine can work with the DeepSpeed of this environment."""
    try:
        # DeepSpeed logs to the standard output that it finds when it is imported.
        with contextlib.redirect_stdout(sys.stderr):
            from engine.distributed import zero
    except ConfigError as error:
        return missing("DeepSpeed", str(error), INSTALL)
    except ImportError as error:
        return missing("DeepSpeed", f"cannot be imported ({error})", INSTALL)
    return active(
        "DeepSpeed", f"{zero.VERSION}, the release that engine/distributed/zero.py is written for"
    )


@dataclass(frozen=True)
class OpState:
    """What DeepSpeed's own report says about one of its ops."""

    built: bool
    compatible: bool  # with this machine


@cache
def op_table() -> dict[str, OpState]:
    """Read DeepSpeed's report about its ops.

    Empty if the report fails; ``deepspeed`` then says why.
    """
    report = subprocess.run(
        [sys.executable, "-m", "deepspeed.env_report"], capture_output=True, text=True
    )
    table = {}
    for name, built, compatible in _ROW.findall(_COLOUR.sub("", report.stdout)):
        table[name] = OpState(built == "YES", compatible == "OKAY")
    return table


def ops() -> list[Fact]:
    """The ops that training uses here: the optimizer; on a CPU also the shared-memory exchange."""
    names = ["fused_adam"]
    if not has_gpu():
        names.append("deepspeed_shm_comm")
    return [_op(name) for name in names]


def _op(name: str) -> Fact:
    title = f"op {name}"
    if name not in op_table():
        return missing(
            title, "DeepSpeed's report does not name it", "run python -m deepspeed.env_report"
        )
    reason = "compiled at first use"
    if op_table()[name].built:
        reason = "built"
    return check(title, op_obstacle(name), reason=reason, advice="see compilers")


def op_obstacle(name: str) -> str | None:
    """Why an op of DeepSpeed's report can be neither loaded nor compiled, or None."""
    state = op_table()[name]
    if state.built:
        return None
    if not state.compatible:
        return "DeepSpeed says that it is incompatible with this machine"
    return compiler_obstacle()


def triton() -> Fact:
    """The compiler of the kernels."""
    installed = version("triton")
    if installed is None:
        return missing(
            "Triton",
            "not installed",
            "optional, the PyTorch code runs instead; it comes with torch's CUDA build",
        )
    return active("Triton", installed)


def kernels() -> list[Fact]:
    """What each kernel of models/kernels would do here with an input that it takes."""
    advice = ""
    if has_gpu():
        advice = "SKYSENSE_KERNELS=auto switches it on"
    facts = []
    for name, outcome in survey(device()).items():
        if outcome.startswith("Triton"):
            facts.append(active(f"kernel {name}", outcome))
        else:
            facts.append(off(f"kernel {name}", outcome, advice))
    return facts


def tutel() -> Fact:
    """Tutel's kernels that dispatch tokens to the experts."""
    obstacle = tutel_obstacle()
    if obstacle is not None:
        return missing("Tutel", obstacle, f"optional; {GUIDE}")
    reason = f"{version('tutel')}, used where skysense.model.moe.implementation is tutel"
    return off("Tutel", reason)


def tutel_obstacle() -> str | None:
    """Why Tutel cannot dispatch tokens on this machine, or None.

    Tutel and DeepSpeed ignore a broken build silently.
    """
    for name in ("tutel.moe", "tutel_custom_kernel"):
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            return f"no {name} ({error})"
    if has_gpu() and not hasattr(module, "inject_source"):
        return "built without CUDA (NO_CUDA=1)"
    return None


def apex() -> list[Fact]:
    """Apex's layer norm, which is optional, and its optimizer, which is not used."""
    norm_obstacle = apex_obstacle("fused_layer_norm_cuda")
    if norm_obstacle is not None:
        norm = missing("Apex FusedLayerNorm", norm_obstacle, f"optional; {GUIDE}")
    else:
        norm = off("Apex FusedLayerNorm", "used where skysense.layer_norm is apex")
    state = apex_obstacle("amp_C") or "installed"
    adam = off("Apex FusedAdam", f"{state}; not used, DeepSpeed's FusedAdam is the same kernel")
    return [norm, adam]


def grouped_products() -> Fact:
    """torch's product of many matrices of different heights.

    models/kernels/grouped_product.py says when it is used.
    """
    name = "torch grouped_mm"
    if not hasattr(torch.nn.functional, "grouped_mm"):
        return missing(name, f"torch {torch.__version__} does not have it", INSTALL)
    if not has_gpu() or torch.cuda.get_device_capability()[0] != GROUPED_CAPABILITY:
        return off(name, f"used on GPUs of compute capability {GROUPED_CAPABILITY} only")
    reason = "bf16 products of the experts' kernel"
    if survey(device())["experts"].startswith("Triton"):
        return active(name, reason)
    return off(name, reason, "it is off with that kernel")


def optional(module: str, package: str, *, purpose: str, advice: str) -> Fact:
    """A library that only some runs need."""
    installed = version(package)
    if installed is None:
        return missing(module, f"not installed; needed for: {purpose}", advice)
    return active(module, f"{installed}, {purpose}")
