"""Pieces that several cases share."""

import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from engine.bench.case import Candidate
from models.kernels.dispatch import active

SWITCH = "SKYSENSE_KERNELS"  # environment variable: which kernels run
NO_GPU = (
    "kernels run on a GPU; the interpreter's time says nothing, "
    "and tests/kernels compare its values"
)


def precise(device: torch.device) -> torch.dtype:
    """bf16 where kernels run, float32 on a CPU: most of them have no bf16 products."""
    if device.type == "cuda":
        return torch.bfloat16
    return torch.float32


def type_name(dtype: torch.dtype) -> str:
    """A type without "torch."."""
    return str(dtype).removeprefix("torch.")


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.compile for these shapes, compiled at the first call."""
    return torch.compile(function, dynamic=False)


def built_later(make: Callable[[], Callable[..., Tensor]]) -> Callable[..., Tensor]:
    """The function that ``make`` returns, made at the first call.

    Where it cannot be made, only its own candidate fails.
    """
    make_once = cache(make)

    def call(*tensors: Tensor) -> Tensor:
        return make_once()(*tensors)

    return call


def draw(*shape: int, device: torch.device, seed: int) -> Tensor:
    """Normal numbers, float32, equal on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def with_kernels(name: str, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``call`` with the project's kernels on.

    The function raises RuntimeError where ``name`` took another path: its time would be that of the
    reference.
    """
    call_with_kernels = switched("on", call)

    def checked() -> Tensor:
        out = call_with_kernels()
        path = active().get(name, "no decision")
        if "Triton" not in path:
            raise RuntimeError(f"kernel {name}: expected Triton to run, found {path}")
        return out

    return checked


def switched(value: str, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``call`` with SKYSENSE_KERNELS set to ``value``."""

    def call_switched() -> Tensor:
        before = os.environ.get(SWITCH)
        os.environ[SWITCH] = value
        try:
            return call()
        finally:
            if before is None:
                del os.environ[SWITCH]
            else:
                os.environ[SWITCH] = before

    return call_switched


def candidate(
    name: str,
    function: Callable[..., Tensor],
    tensors: tuple[Tensor, ...],
    *,
    ours: bool = False,
) -> Candidate:
    """A function of leaves."""
    return Candidate(name, lambda: function(*tensors), tensors, ours=ours)
