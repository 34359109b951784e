"""What a step ran on, and how much memory it took."""

from pathlib import Path

import torch


def hardware(device: torch.device, ranks: int, dtype: torch.dtype) -> dict:
    """Device, ranks, threads and type as plain values."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = processor(Path("/proc/cpuinfo").read_text())
    return {
        "device": name,
        "kind": device.type,
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "type": str(dtype).removeprefix("torch."),
    }


def processor(cpuinfo: str) -> str:
    """The processor's name in the text of /proc/cpuinfo; not every architecture gives one."""
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unnamed CPU"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peaks of this process so far, in bytes.

    Returns:
        "resident" for the resident set; on a GPU also "allocated" and "reserved" by torch.
    """
    # Not getrusage: there a process starts with the peak of its parent.
    status = Path("/proc/self/status").read_text()
    peaks = {"resident": 1024 * int(status.partition("VmHWM:")[2].split()[0])}
    if device.type == "cuda":
        peaks["allocated"] = torch.cuda.max_memory_allocated(device)
        peaks["reserved"] = torch.cuda.max_memory_reserved(device)
    return peaks
