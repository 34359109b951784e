"""What the code around kernels asks of a GPU.

A rehearsal has tensors without values. While ``rehearsed`` is entered, their device counts as a
GPU, and launches are heard instead of made.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

Launch = Callable[[str, tuple, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Gpu:
    """The GPU that a rehearsal is for."""

    processors: int
    capability: int  # the major number


_rehearsed: list[Gpu] = []  # at most one


def is_gpu(device: torch.device) -> bool:
    """Whether kernels can run for tensors on a device."""
    return device.type == "cuda" or (device.type == "meta" and bool(_rehearsed))


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    if device.type == "meta":
        return _rehearsed[0].processors
    return torch.cuda.get_device_properties(device).multi_processor_count


def capability(device: torch.device) -> int:
    """The major number of a GPU's compute capability."""
    if device.type == "meta":
        return _rehearsed[0].capability
    return torch.cuda.get_device_capability(device)[0]


@contextmanager
def rehearsed(gpu: Gpu, on_launch: Launch) -> Iterator[None]:
    """Let the meta device stand for a GPU.

    Args:
        gpu: Which one.
        on_launch: Hears the name of a kernel with its arguments, those by name apart.
    """
    from triton.runtime.jit import JITFunction

    def run(kernel, *arguments, grid, warmup, **options):
        on_launch(kernel.fn.__name__, arguments, options)

    _rehearsed.append(gpu)
    try:
        with mock.patch.object(JITFunction, "run", run):
            yield
    finally:
        _rehearsed.pop()
