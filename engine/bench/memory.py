"""The most memory that a call holds at once beyond what was there before it; its results are part
of it."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def extra_bytes(call: Callable[[], list[Tensor]], device: torch.device) -> int:
    """Peak of the bytes allocated during the call, which returns its results; exact, not sampled.

    On a CPU every allocation of PyTorch's allocator counts, those inside an operator included; what
    a library obtains by itself (packed blocks of a matrix product) does not.
    """
    return _peak_cuda(call, device) if device.type == "cuda" else _peak_cpu(call)


def result_bytes(tensors: list[Tensor]) -> int:
    """What the tensors occupy; views of one another count once."""
    storages = {
        storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors)
    }
    return sum(storages.values())


def _peak_cuda(call: Callable[[], list[Tensor]], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_cpu(call: Callable[[], list[Tensor]]) -> int:
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]  # negative where something is freed
        peak = max(peak, held)
    return peak
