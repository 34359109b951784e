"""What the Triton kernels compute, for a rehearsal that does not launch them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from engine.planning.recorder import Recorder
from models.kernels.dispatch import OFF, has_triton, wanted
from models.kernels.gpu import Gpu, rehearsed

# Matrix products of a kernel of window attention: the backward pass computes the scores again.
WINDOW_PRODUCTS = {"forward_kernel": 2, "backward_kernel": 5}
GROUPED = ("_rows_times", "_outer_sums")


def planned_kernels(gpu: Gpu, recorder: Recorder) -> AbstractContextManager:
    """While it is entered, the kernels that SKYSENSE_KERNELS asks for run as on a GPU."""
    if wanted() == OFF or not has_triton():
        return nullcontext()

    def hear(name: str, arguments: tuple, options: Mapping[str, Any]) -> None:
        work = recorder.note_work(name, arguments)
        work.flops += _flops(name, arguments, options)

    return rehearsed(gpu, hear)


def _flops(name: str, arguments: tuple, options: Mapping[str, Any]) -> int:
    """FLOPs of a launch; 0 for kernels that only move data."""
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if name in WINDOW_PRODUCTS:
        qkv = tensors[0]  # images h w 3 heads d
        return 2 * WINDOW_PRODUCTS[name] * qkv.numel() // 3 * options["BLOCK"]
    if name in GROUPED:
        x, other = tensors[:2]
        return 2 * x.numel() * other.shape[-1]
    return 0
