"""Which path a function takes, its Triton kernel or its PyTorch reference.

This is decided and logged in one place. The environment variable ``SKYSENSE_KERNELS`` says what is
wanted:

- ``off`` (default, see below): no kernels;
- ``auto``: kernels for CUDA tensors;
- ``on``: also for other tensors, through Triton's interpreter (``TRITON_INTERPRET=1``, set before
  triton is imported), and with a warning where a kernel cannot run.
"""

import importlib.util
import logging
import os
from functools import cache

import torch
from torch import Tensor

from models.errors import ModelError
from models.kernels.gpu import is_gpu

log = logging.getLogger(__name__)

VARIABLE = "SKYSENSE_KERNELS"
OFF = "off"
AUTO = "auto"
ON = "on"

# The kernels pass their tests in the interpreter and compile, but nobody has run them on a GPU yet.
# Until the tests marked ``gpu`` have passed on one, they run only where they are asked for
# (docs/performance.md).
DEFAULT = OFF

# All names that kernel_path is asked for.
KERNELS = ("window_attention", "sinkhorn", "head_loss", "experts")

_decisions: dict[str, list[str]] = {}


def kernel_path(name: str, tensor: Tensor, *, why_not: str | None = None) -> bool:
    """Decide whether a Triton kernel runs. Each new outcome of a kernel is logged once.

    Args:
        name: One of ``KERNELS``.
        tensor: An input of the call.
        why_not: The caller's own reason against the kernel, such as a size that it does not take.

    Raises:
        ModelError: SKYSENSE_KERNELS is none of off, on, auto.
    """
    mode = wanted()
    obstacle = _obstacle(mode, tensor.device)
    if obstacle is None:
        obstacle = why_not
    outcome = _describe(obstacle)
    outcomes = _decisions.setdefault(name, [])
    if outcome not in outcomes:
        outcomes.append(outcome)
        level = logging.INFO
        if obstacle is not None and mode == ON:
            level = logging.WARNING
        log.log(level, "kernel %s: %s", name, outcome)
    return obstacle is None


def active() -> dict[str, str]:
    """Kernel -> what was decided so far in this process and why, separated by semicolons."""
    return {name: "; ".join(outcomes) for name, outcomes in _decisions.items()}


def survey(device: torch.device) -> dict[str, str]:
    """Kernel -> what would be decided for a tensor on ``device`` that the kernel takes.

    Nothing is logged.

    Raises:
        ModelError: As of ``kernel_path``.
    """
    outcome = _describe(_obstacle(wanted(), device))
    return dict.fromkeys(KERNELS, outcome)


def wanted() -> str:
    """The value of SKYSENSE_KERNELS.

    Raises:
        ModelError: It is none of off, on, auto.
    """
    value = os.environ.get(VARIABLE, DEFAULT)
    if value not in (OFF, ON, AUTO):
        raise ModelError(f"{VARIABLE}: expected off, on or auto, found {value!r}; set one of them")
    return value


def _describe(obstacle: str | None) -> str:
    """A decision in words."""
    if obstacle is not None:
        return f"PyTorch ({obstacle})"
    if _interpreted():
        return "Triton, interpreted"
    return "Triton"


def _obstacle(mode: str, device: torch.device) -> str | None:
    """Why kernels do not run for tensors on ``device``, or None."""
    if mode == OFF:
        if VARIABLE in os.environ:
            return f"{VARIABLE}=off"
        return f"not asked for by {VARIABLE}"
    if not has_triton():
        return "triton is not installed"
    if _interpreted() and device.type in ("cpu", "cuda"):
        if mode == ON:
            return None
        # far slower than the reference: only when asked for
        return f"TRITON_INTERPRET=1 without {VARIABLE}=on"
    if not is_gpu(device):
        return f"no CUDA device: the tensor is on {device.type}"
    return None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@cache
def has_triton() -> bool:
    """Whether triton is installed."""
    return importlib.util.find_spec("triton") is not None
