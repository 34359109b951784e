"""What the device reaches at best, measured in the same run: copies, and products by
engine/profile/ceiling.py."""

import torch
from torch.utils.benchmark import Timer

from engine.profile.ceiling import SIZES, matmul_rate

COPIED = {"cuda": 1 << 30, "cpu": 1 << 28}  # bytes, far beyond the last-level cache


def copy_rate(device: torch.device, seconds: float) -> float:
    """Bytes/s of copying one buffer to another: those read and those written; median of repeats
    over ``seconds``."""
    a = torch.randint(0, 255, (COPIED[device.type],), dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    timer = Timer("b.copy_(a)", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
    return 2 * a.nbytes / timer.blocked_autorange(min_run_time=seconds).median


def ceilings(device: torch.device, seconds: float) -> dict[str, float]:
    """ "copy" in bytes/s, and FLOP/s of products by the name of their type."""
    types = (torch.bfloat16, torch.float32) if device.type == "cuda" else (torch.float32,)
    side = SIZES[device.type]
    return {"copy": copy_rate(device, seconds)} | {
        str(t): matmul_rate(device, t, side, seconds) for t in types
    }
