"""What the device reaches at best, measured in the same run: copies and matrix products."""

import torch
from torch.utils.benchmark import Timer

from engine.profile.ceiling import SIZES, matmul_rate

COPIED_BYTES = {"cuda": 1 << 30, "cpu": 1 << 28}  # far beyond the last-level cache


def copy_rate(device: torch.device, seconds: float) -> float:
    """Bytes/s of copying one buffer to another: those read and those written.

    The median of repeats over ``seconds``.
    """
    size = COPIED_BYTES[device.type]
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timer = Timer(
        "target.copy_(source)",
        globals={"source": source, "target": target},
        num_threads=torch.get_num_threads(),
    )
    return 2 * source.nbytes / timer.blocked_autorange(min_run_time=seconds).median


def ceilings(device: torch.device, seconds: float) -> dict[str, float]:
    """ "copy" in bytes/s, and FLOP/s of products by the name of their type."""
    dtypes = [torch.float32]
    if device.type == "cuda":
        dtypes = [torch.bfloat16, torch.float32]
    rates = {"copy": copy_rate(device, seconds)}
    for dtype in dtypes:
        rates[str(dtype)] = matmul_rate(device, dtype, SIZES[device.type], seconds)
    return rates
