"""Which path a function takes, its Triton kernel or its PyTorch reference: decided and said in one
place.

``SKYSENSE_KERNELS``: ``off`` (default, see below) never runs kernels; ``auto`` on CUDA tensors;
``on`` also on other tensors through Triton's interpreter (``TRITON_INTERPRET=1``, set before triton
is imported), and warns where a kernel cannot run.
"""

import importlib.util
import logging
import os
from functools import cache

import torch
from torch import Tensor

from models.errors import ModelError

log = logging.getLogger(__name__)

# The kernels pass their tests in the interpreter and compile, but nobody has run them on a GPU yet:
# until the tests marked ``gpu`` have passed on one, they run only where they are asked for
# (docs/performance.md).
DEFAULT = "off"

KERNELS = (
    "window_attention",
    "sinkhorn",
    "head_loss",
    "experts",
)  # all names that kernel_path is asked for

_decisions: dict[str, list[str]] = {}


def kernel_path(name: str, tensor: Tensor, *, why_not: str | None = None) -> bool:
    """Whether the Triton kernel ``name`` runs for ``tensor``, an input of the call.

    ``why_not`` is the caller's own reason against it, such as a size the kernel does not take. Each
    new outcome of a kernel is logged once. Raises ModelError if SKYSENSE_KERNELS is none of off,
    on, auto.
    """
    wish = _wish()
    obstacle = _obstacle(wish, tensor.device) or why_not
    outcome = _outcome(obstacle)
    known = _decisions.setdefault(name, [])
    if outcome not in known:
        known.append(outcome)
        log.log(
            logging.WARNING if obstacle and wish == "on" else logging.INFO,
            "kernel %s: %s",
            name,
            outcome,
        )
    return not obstacle


def active() -> dict[str, str]:
    """Kernel -> what was decided so far in this process and why; several outcomes are parted by
    semicolons."""
    return {name: "; ".join(outcomes) for name, outcomes in _decisions.items()}


def survey(device: torch.device) -> dict[str, str]:
    """Kernel -> what would be decided for a tensor on ``device`` that the kernel takes; nothing is
    logged.

    Raises ModelError as ``kernel_path`` does.
    """
    outcome = _outcome(_obstacle(_wish(), device))
    return dict.fromkeys(KERNELS, outcome)


def _wish() -> str:
    """The value of SKYSENSE_KERNELS."""
    wish = os.environ.get("SKYSENSE_KERNELS", DEFAULT)
    if wish not in ("off", "on", "auto"):
        raise ModelError(f"SKYSENSE_KERNELS: expected off, on or auto, found {wish!r}")
    return wish


def _outcome(obstacle: str | None) -> str:
    """How the log names a decision."""
    return (
        f"PyTorch ({obstacle})"
        if obstacle
        else "Triton, interpreted"
        if _interpreted()
        else "Triton"
    )


def _obstacle(wish: str, device: torch.device) -> str | None:
    if wish == "off":
        return (
            "SKYSENSE_KERNELS=off"
            if "SKYSENSE_KERNELS" in os.environ
            else "not asked for by SKYSENSE_KERNELS"
        )
    if not _has_triton():
        return "triton is not installed"
    if _interpreted() and device.type in ("cpu", "cuda"):
        # far slower than the reference: only when asked for
        return None if wish == "on" else "TRITON_INTERPRET=1 without SKYSENSE_KERNELS=on"
    return None if device.type == "cuda" else f"no CUDA device: the tensor is on {device.type}"


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
