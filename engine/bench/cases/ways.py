"""Pieces that several cases share."""

import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from engine.bench.case import Way
from models.kernels.dispatch import active

HALF = torch.bfloat16
NO_GPU = "kernels run on a GPU; the interpreter's time says nothing, its values are the tests' affair (tests/kernels)"


def precise(device: torch.device) -> torch.dtype:
    """bf16 where kernels run, float32 on a CPU, most of which have no bf16 products."""
    return HALF if device.type == "cuda" else torch.float32


def compiled(function: Callable) -> Callable:
    """torch.compile for these shapes, compiled at the first call."""
    return torch.compile(function, dynamic=False)


def built_later(make: Callable[[], Callable]) -> Callable:
    """The function that ``make`` returns, made at the first call: where it cannot be made, only
    that way fails."""
    made = cache(make)
    return lambda *given: made()(*given)


def draw(*shape: int, device: torch.device, seed: int) -> Tensor:
    """Normal numbers, float32, equal on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def with_kernels(name: str, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``call`` with the project's kernels on. Raises RuntimeError where ``name`` took another path:
    its time would be that of the reference."""
    asked = switched("on", call)

    def wrapped():
        out = asked()
        if "Triton" not in active().get(name, ""):
            raise RuntimeError(
                f"kernel {name}: expected Triton to run, found {active().get(name, 'no decision')}"
            )
        return out

    return wrapped


def switched(wish: str, call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``call`` with SKYSENSE_KERNELS as given."""

    def wrapped():
        before = os.environ.get("SKYSENSE_KERNELS")
        os.environ["SKYSENSE_KERNELS"] = wish
        try:
            return call()
        finally:
            if before is None:
                del os.environ["SKYSENSE_KERNELS"]
            else:
                os.environ["SKYSENSE_KERNELS"] = before

    return wrapped


def way(
    name: str, function: Callable[..., Tensor], tensors: tuple[Tensor, ...], ours: bool = False
) -> Way:
    """A function of the leaves."""
    return Way(name, lambda: function(*tensors), tensors, ours)
