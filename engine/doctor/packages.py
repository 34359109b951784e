"""The packages: DeepSpeed and its ops, kernels, and what is used only where it is asked for."""

import contextlib
import importlib
import re
import subprocess
import sys
from functools import cache
from importlib import metadata

import torch

from engine.doctor.fact import ACTIVE, MISSING, OFF, Fact, found
from engine.doctor.machine import compiler_obstacle, device, has_gpu
from engine.errors import ConfigError
from models.kernels.dispatch import survey
from models.layer_norm import apex_obstacle

GUIDE = "docs/backends.md says how to install it"
_ROW = re.compile(r"(\w+) \.* *\[(YES|NO)\] \.* *\[(OKAY|NO)\]")
_COLOUR = re.compile(r"\x1b\[\d*m")


def packages() -> list[Fact]:
    """Facts of this environment, in the order of the report. Raises ModelError for a wrong
    SKYSENSE_KERNELS."""
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
            "text tower of the class names",
            "pip install open_clip_torch",
        ),
        optional("s3fs", "s3fs", "shards at s3://", "pip install 'skysense-v2[s3]'"),
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
        with contextlib.redirect_stdout(
            sys.stderr
        ):  # it logs to where it finds the output when it is imported
            from engine.distributed import zero
    except ConfigError as error:
        return Fact("DeepSpeed", MISSING, str(error))
    except ImportError as error:
        return Fact("DeepSpeed", MISSING, f"cannot be imported ({error})", "make install")
    return Fact(
        "DeepSpeed",
        ACTIVE,
        f"{zero.VERSION}, the release that engine/distributed/zero.py is written for",
    )


@cache
def op_table() -> dict[str, tuple[bool, bool]]:
    """Op -> whether it is built, and whether DeepSpeed holds it compatible with this machine; by
    its own report.

    Empty where the report fails: ``deepspeed`` then says why.
    """
    done = subprocess.run(
        [sys.executable, "-m", "deepspeed.env_report"], capture_output=True, text=True
    )
    return {
        name: (built == "YES", able == "OKAY")
        for name, built, able in _ROW.findall(_COLOUR.sub("", done.stdout))
    }


def ops() -> list[Fact]:
    """The ops that training uses here: the optimizer, and on a CPU the exchange through shared
    memory."""
    names = ("fused_adam",) if has_gpu() else ("fused_adam", "deepspeed_shm_comm")
    return [
        found(
            f"op {name}",
            op_obstacle(name),
            "built" if op_table()[name][0] else "compiled at first use",
            "see compilers",
        )
        if name in op_table()
        else Fact(
            f"op {name}",
            MISSING,
            "DeepSpeed's report does not name it",
            "python -m deepspeed.env_report",
        )
        for name in names
    ]


def op_obstacle(name: str) -> str | None:
    """Why an op of DeepSpeed's report can neither be loaded nor compiled, or None."""
    built, able = op_table()[name]
    if built:
        return None
    return compiler_obstacle() if able else "DeepSpeed holds it incompatible with this machine"


def triton() -> Fact:
    """The compiler of the kernels."""
    return found(
        "Triton",
        None if version("triton") else "not installed",
        f"{version('triton')}",
        "it comes with torch's CUDA build",
    )


def kernels() -> list[Fact]:
    """What each kernel of models/kernels would do here with an input that it takes."""
    advice = "SKYSENSE_KERNELS=auto asks for it" if has_gpu() else ""
    return [
        Fact(f"kernel {name}", ACTIVE, outcome)
        if outcome.startswith("Triton")
        else Fact(f"kernel {name}", OFF, outcome, advice)
        for name, outcome in survey(device()).items()
    ]


def tutel() -> Fact:
    """Tutel's dispatch kernels for the experts."""
    obstacle = tutel_obstacle()
    if obstacle:
        return Fact("Tutel", MISSING, obstacle, f"optional; {GUIDE}")
    return Fact(
        "Tutel", OFF, f"{version('tutel')}, used where skysense.model.moe.implementation is tutel"
    )


def tutel_obstacle() -> str | None:
    """Why Tutel cannot dispatch tokens on this machine, or None. It and DeepSpeed pass over a
    broken build silently."""
    for name in ("tutel.moe", "tutel_custom_kernel"):
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            return f"no {name} ({error})"
    return (
        "built without CUDA (NO_CUDA=1)"
        if has_gpu() and not hasattr(module, "inject_source")
        else None
    )


def apex() -> list[Fact]:
    """Apex's layer norm, which can be asked for, and its optimizer, which adds nothing to
    DeepSpeed's."""
    norm, adam = (apex_obstacle(extension) for extension in ("fused_layer_norm_cuda", "amp_C"))
    return [
        Fact("Apex FusedLayerNorm", MISSING, norm, f"optional; {GUIDE}")
        if norm
        else Fact("Apex FusedLayerNorm", OFF, "used where skysense.layer_norm is apex"),
        Fact(
            "Apex FusedAdam",
            OFF,
            f"{adam or 'installed'}; not used, DeepSpeed's FusedAdam is the same kernel",
        ),
    ]


def grouped_products() -> Fact:
    """torch's product of many matrices of different heights; models/kernels/grouped_product.py says
    when it is used."""
    if not hasattr(torch.nn.functional, "grouped_mm"):
        return Fact(
            "torch grouped_mm", MISSING, f"torch {torch.__version__} has none", "make install"
        )
    if not has_gpu() or torch.cuda.get_device_capability()[0] != 9:
        return Fact("torch grouped_mm", OFF, "used on GPUs of compute capability 9 only")
    used = survey(device())["experts"].startswith("Triton")
    return Fact(
        "torch grouped_mm",
        ACTIVE if used else OFF,
        "bf16 products of the kernel experts",
        "" if used else "off with that kernel",
    )


def optional(module: str, package: str, purpose: str, advice: str) -> Fact:
    """A library that only some runs need."""
    installed = version(package)
    return found(
        module,
        None if installed else f"not installed; needed for: {purpose}",
        f"{installed}, {purpose}",
        advice,
    )
