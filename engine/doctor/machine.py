"""The machine: processors, memory, limits, torch and the devices that it sees."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from engine.doctor.fact import Fact, active, check, missing, off

GIB = 2**30
SHARED = Path("/dev/shm")
RANK_SHARED = 66 * 2**20  # bytes of it that DeepSpeed maps for a CPU rank
# Headers of CUDA's toolkit that torch's own headers include.
HEADERS = ("cusparse.h", "cublas_v2.h", "cusolverDn.h")
_DRIVER = Path("/sys/module/nvidia/version")
_CONTROL = Path("/sys/fs/cgroup")  # limits of a container, version 2
_UNLIMITED = 2**60
_FEW_FILES = 256  # open files of a process without loader
_MANY_FILES = 65536  # a usual limit on servers


def machine() -> list[Fact]:
    """Facts of this machine, in the order of the report."""
    return [
        active("Python", f"{platform.python_version()}, {sys.executable}"),
        torch_version(),
        gpu(),
        bf16(),
        nccl(),
        compilers(),
        cores(),
        memory(),
        shared_memory(RANK_SHARED, "needed by one CPU rank"),
        open_files(_FEW_FILES),
    ]


def has_gpu() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """The device that a rank of this machine computes on."""
    return torch.device("cuda" if has_gpu() else "cpu")


def torch_version() -> Fact:
    """torch and the CUDA release that it was built for."""
    built = "without CUDA"
    if torch.version.cuda:
        built = f"for CUDA {torch.version.cuda}"
    return active("torch", f"{torch.__version__}, built {built}")


def gpu() -> Fact:
    """The GPUs, or why torch sees none."""
    driver = _read(_DRIVER)
    if has_gpu():
        return active("GPU", f"{_cards()}; driver {driver or 'unknown'}")
    if torch.version.cuda is None:
        return missing(
            "GPU",
            "none: torch is built without CUDA",
            "training runs on the CPU; for a GPU install torch's CUDA build",
        )
    if not driver:
        return missing(
            "GPU",
            "none: the NVIDIA driver is not loaded",
            "training runs on the CPU; for a GPU install the driver",
        )
    reason = f"none: the driver {driver} is loaded, but torch sees no card"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        reason += f", CUDA_VISIBLE_DEVICES={visible!r}"
    advice = f"run nvidia-smi, and check that the driver supports CUDA {torch.version.cuda}"
    return missing("GPU", reason, advice)


def _cards() -> str:
    """Number and kind of the GPUs."""
    counts: dict[str, int] = {}
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        kind = (
            f"{card.name}, compute capability {card.major}.{card.minor}, "
            f"{card.total_memory / GIB:.0f} GiB"
        )
        counts[kind] = counts.get(kind, 0) + 1
    return "; ".join(f"{count} x {kind}" for kind, count in counts.items())


def bf16() -> Fact:
    """Whether matrix products in bf16 are faster than in float32."""
    if has_gpu():
        obstacle = None
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            obstacle = "the GPU has no bf16 units"
        return check("bf16", obstacle, reason="native on the GPU", advice="set bf16.enabled=false")
    flags = _read(Path("/proc/cpuinfo")).split()
    units = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    if units:
        return active("bf16", f"the CPU has {' and '.join(units)}")
    return off(
        "bf16",
        "correct but slow: the CPU has neither amx_bf16 nor avx512_bf16",
        "train in float32",
    )


def nccl() -> Fact:
    """The library that exchanges data between ranks."""
    if not torch.distributed.is_nccl_available():
        return missing(
            "NCCL",
            "torch is built without it",
            "ranks without a GPU use gloo; for GPUs install torch's CUDA build",
        )
    version = ".".join(str(number) for number in torch.cuda.nccl.version())
    if has_gpu():
        return active("NCCL", version)
    return off("NCCL", f"{version}; ranks without a GPU use gloo")


def compilers() -> Fact:
    """The tools with which DeepSpeed compiles its ops at first use."""
    tools = "C++ compiler and ninja"
    if has_gpu():
        tools = "C++ compiler, ninja and nvcc"
    return check(
        "compilers",
        compiler_obstacle(),
        reason=tools,
        advice="DeepSpeed compiles its ops with them at first use: install them and add them to "
        "PATH",
    )


def compiler_obstacle() -> str | None:
    """Why no op of DeepSpeed can be compiled for this machine, or None."""
    compiler = os.environ.get("CXX", "c++")
    lacking = []
    for name in (compiler, "ninja"):
        if shutil.which(name) is None:
            lacking.append(name)
    if lacking:
        return f"no {' and no '.join(lacking)} on PATH"
    if has_gpu():
        return _toolkit_obstacle()
    return None


def _toolkit_obstacle() -> str | None:
    """Why nvcc cannot compile for this torch, or None.

    DeepSpeed refuses another major release than torch's.
    """
    # Searches for the toolkit when it is imported, and prints what it finds.
    from torch.utils.cpp_extension import CUDA_HOME

    if CUDA_HOME is None:
        return "no nvcc, CUDA_HOME is not set"
    nvcc = Path(CUDA_HOME, "bin", "nvcc")
    if not nvcc.exists():
        return f"no nvcc, CUDA_HOME is {CUDA_HOME}"
    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = output.partition("release ")[2].split(",")[0]
    if release.split(".")[0] != (torch.version.cuda or "").split(".")[0]:
        return f"{nvcc} is of CUDA {release or 'unknown'}, torch of {torch.version.cuda}"
    return _header_obstacle(CUDA_HOME)


def _header_obstacle(toolkit: str) -> str | None:
    """Which headers of the CUDA toolkit the compiler does not find, or None."""
    folders = [f"{toolkit}/include"]
    for folder in os.environ.get("CPATH", "").split(os.pathsep):
        if folder:
            folders.append(folder)
    lacking = []
    for name in HEADERS:
        if not any(Path(folder, name).exists() for folder in folders):
            lacking.append(name)
    if not lacking:
        return None
    return f"no {', '.join(lacking)} in {os.pathsep.join(folders)}"


def cores() -> Fact:
    """Cores that this process may use."""
    reason = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} for this process"
    quota, _, period = _read(_CONTROL / "cpu.max").partition(" ")
    if quota.isdigit():
        reason += f", {int(quota) / int(period):g} by the container's quota"
    return active("cores", reason)


def memory() -> Fact:
    """Memory of the machine, and the limit of a container."""
    sizes = _memory_sizes()
    available = sizes["MemAvailable"] / GIB
    reason = f"{available:.0f} of {sizes['MemTotal'] / GIB:.0f} GiB available"
    limit = _read(_CONTROL / "memory.max")
    if limit.isdigit():
        reason += f", the container's limit is {int(limit) / GIB:.0f} GiB"
    return active("memory", reason)


def available_memory() -> int:
    """Bytes that new processes can take: of the machine, or of the container if that is less."""
    available = _memory_sizes()["MemAvailable"]
    limit = _read(_CONTROL / "memory.max")
    if limit.isdigit():
        held = int(_read(_CONTROL / "memory.current")) - _cached_files()
        available = min(available, int(limit) - held)
    return available


def _cached_files() -> int:
    """Bytes of a container's memory that the kernel gives back when they are wanted."""
    for line in _read(_CONTROL / "memory.stat").splitlines():
        name, _, size = line.partition(" ")
        if name == "inactive_file":
            return int(size)
    return 0


def _memory_sizes() -> dict[str, int]:
    """Bytes by the kernel's names."""
    sizes = {}
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, size = line.partition(":")
        sizes[name] = 1024 * int(size.split()[0])
    return sizes


def shared_memory(need: int, purpose: str) -> Fact:
    """Free space of /dev/shm, compared with ``need`` bytes for ``purpose``."""
    free = 0
    if SHARED.exists():
        free = shutil.disk_usage(SHARED).free
    reason = f"{free / GIB:.1f} GiB free, {need / GIB:.2f} GiB {purpose}"
    return check(
        str(SHARED),
        reason if free < need else None,
        reason=reason,
        advice="make it larger: docker run --shm-size=..., or mount -o remount,size=...",
    )


def open_files(need: int) -> Fact:
    """The limit of open files, compared with ``need``.

    Each tensor on its way from a worker of a loader holds one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reason = f"{_limit(soft)} for a process, {need} are enough"
    if soft == resource.RLIM_INFINITY:
        soft = _UNLIMITED
    return check(
        "open files",
        reason if soft < need else None,
        reason=reason,
        advice=f"ulimit -n {max(need, _MANY_FILES)} (at most {_limit(hard)} without root)",
    )


def _limit(value: int) -> str:
    if value == resource.RLIM_INFINITY:
        return "unlimited"
    return str(value)


def _read(path: Path) -> str:
    """The text of a file of the kernel; empty if there is none."""
    if not path.exists():
        return ""
    return path.read_text().strip()
