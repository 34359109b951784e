"""Speed of a device on a large matrix product: the yardstick for the FLOP/s of a training step."""

import torch
from torch.utils.benchmark import Timer

SIZES = {"cuda": 8192, "cpu": 2048}  # sides so large that edges do not count


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int, seconds: float = 2.0) -> float:
    """FLOP/s of a square matrix product; a multiply-add counts as two.

    Args:
        device: where it runs.
        dtype: of both matrices.
        size: their side.
        seconds: how long it is repeated; the median counts.
    """
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    product = torch.empty_like(a)  # made once: its allocation is not measured
    timer = Timer(
        "torch.mm(a, b, out=product)",
        globals={"torch": torch, "a": a, "b": b, "product": product},
        num_threads=torch.get_num_threads(),
    )
    return 2 * size**3 / timer.blocked_autorange(min_run_time=seconds).median
