"""The most memory that a call holds at once, its results included."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def extra_bytes(call: Callable[[], list[Tensor]], device: torch.device) -> int:
    """Peak of the bytes allocated during a call, beyond what was there before; exact, not sampled.

    On a CPU every allocation of PyTorch's allocator counts, those inside an operator included. What
    a library obtains by itself (packed blocks of a matrix product) does not count.

    Args:
        call: Returns its results.
        device: Where it allocates.
    """
    if device.type == "cuda":
        return _peak_cuda(call, device)
    return _peak_cpu(call)


def result_bytes(tensors: list[Tensor]) -> int:
    """What the tensors occupy; views of one another count once."""
    sizes = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _peak_cuda(call: Callable[[], list[Tensor]], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_cpu(call: Callable[[], list[Tensor]]) -> int:
    """The peak from the profiler's record of every allocation."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    allocations = [event for event in events if event["name"] == "[memory]"]
    allocations.sort(key=lambda event: event["ts"])
    held = 0
    peak = 0
    for event in allocations:
        held += event["args"]["Bytes"]  # negative where something is freed
        peak = max(peak, held)
    return peak
