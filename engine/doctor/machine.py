"""The machine: processors, memory, limits, torch and what it sees."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from engine.doctor.fact import ACTIVE, MISSING, OFF, Fact, found

GIB = 2**30
SHARED = Path("/dev/shm")
RANK_SHARED = 66 * 2**20  # bytes of it that DeepSpeed maps for a CPU rank
HEADERS = (
    "cusparse.h",
    "cublas_v2.h",
    "cusolverDn.h",
)  # torch's own headers include these of CUDA's toolkit
_DRIVER = Path("/sys/module/nvidia/version")
_CONTROL = Path("/sys/fs/cgroup")  # limits of a container, version 2
_UNLIMITED = 2**60


def machine() -> list[Fact]:
    """Facts of this machine, in the order of the report."""
    return [
        Fact("Python", ACTIVE, f"{platform.python_version()}, {sys.executable}"),
        torch_version(),
        gpu(),
        bf16(),
        nccl(),
        compilers(),
        cores(),
        memory(),
        shared_memory(RANK_SHARED, "what one CPU rank maps"),
        open_files(256),
    ]


def has_gpu() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """Where a rank of this machine computes."""
    return torch.device("cuda" if has_gpu() else "cpu")


def torch_version() -> Fact:
    """torch and the CUDA release that it was built for."""
    return Fact("torch", ACTIVE, f"{torch.__version__}, built {_built()}")


def _built() -> str:
    return f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"


def gpu() -> Fact:
    """The GPUs, or why torch sees none."""
    if has_gpu():
        kinds: dict[str, int] = {}
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            text = f"{card.name}, compute capability {card.major}.{card.minor}, {card.total_memory / GIB:.0f} GiB"
            kinds[text] = kinds.get(text, 0) + 1
        cards = "; ".join(f"{count} x {text}" for text, count in kinds.items())
        return Fact("GPU", ACTIVE, f"{cards}; driver {_read(_DRIVER) or 'unknown'}")
    if torch.version.cuda is None:
        return Fact(
            "GPU",
            MISSING,
            "none: torch is built without CUDA",
            "for a GPU install torch's CUDA build",
        )
    if not _read(_DRIVER):
        return Fact(
            "GPU",
            MISSING,
            "none: the NVIDIA driver is not loaded",
            "training runs on the CPU; for a GPU install it",
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Fact(
        "GPU",
        MISSING,
        f"none: driver {_read(_DRIVER)} shows torch no card"
        + (f", CUDA_VISIBLE_DEVICES={visible!r}" if visible is not None else ""),
        f"check nvidia-smi, and that the driver is new enough for CUDA {torch.version.cuda}",
    )


def bf16() -> Fact:
    """Whether products in bf16 are faster than in float32."""
    if has_gpu():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        obstacle = None if native else "the GPU has no bf16 units"
        return found("bf16", obstacle, "native on the GPU", "set bf16.enabled=false")
    flags = set(_read(Path("/proc/cpuinfo")).split())
    units = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    if units:
        return Fact("bf16", ACTIVE, f"the CPU has {' and '.join(units)}")
    return Fact(
        "bf16",
        OFF,
        "right but slow: the CPU has neither amx_bf16 nor avx512_bf16",
        "train in float32",
    )


def nccl() -> Fact:
    """Who carries the exchange between ranks."""
    if not torch.distributed.is_nccl_available():
        return Fact(
            "NCCL",
            MISSING,
            "torch is built without it",
            "ranks on GPUs need it: install torch's CUDA build",
        )
    version = ".".join(map(str, torch.cuda.nccl.version()))
    return (
        Fact("NCCL", ACTIVE, version)
        if has_gpu()
        else Fact("NCCL", OFF, f"{version}; ranks without a GPU use gloo")
    )


def compilers() -> Fact:
    """What DeepSpeed compiles its ops with, at first use."""
    tools = "C++ compiler, ninja and nvcc" if has_gpu() else "C++ compiler and ninja"
    return found(
        "compilers",
        compiler_obstacle(),
        tools,
        "DeepSpeed compiles its ops with them at first use: install what lacks and put it on PATH",
    )


def compiler_obstacle() -> str | None:
    """What lacks to compile an op of DeepSpeed for this machine, or None."""
    compiler = os.environ.get("CXX", "c++")
    lacking = [name for name in (compiler, "ninja") if shutil.which(name) is None]
    if lacking:
        return f"no {' and no '.join(lacking)} on PATH"
    return _toolkit_obstacle() if has_gpu() else None


def _toolkit_obstacle() -> str | None:
    """Why nvcc cannot compile for this torch, or None. DeepSpeed refuses another major release than
    torch's."""
    from torch.utils.cpp_extension import CUDA_HOME  # looks for it when imported, and says so

    nvcc = Path(CUDA_HOME or "/none", "bin", "nvcc")
    if not nvcc.exists():
        return f"no nvcc, CUDA_HOME is {CUDA_HOME or 'not set'}"
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = said.partition("release ")[2].split(",")[0]
    if release.split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"{nvcc} is of CUDA {release or 'unknown'}, torch of {torch.version.cuda}"
    folders = [f"{CUDA_HOME}/include", *filter(None, os.environ.get("CPATH", "").split(os.pathsep))]
    lacking = [
        name for name in HEADERS if not any(Path(folder, name).exists() for folder in folders)
    ]
    return f"no {', '.join(lacking)} in {os.pathsep.join(folders)}" if lacking else None


def cores() -> Fact:
    """Cores that this process may use."""
    count = len(os.sched_getaffinity(0))
    quota, _, period = _read(_CONTROL / "cpu.max").partition(" ")
    share = f", {int(quota) / int(period):g} by the container's quota" if quota.isdigit() else ""
    return Fact("cores", ACTIVE, f"{count} of {os.cpu_count()} for this process{share}")


def memory() -> Fact:
    """Memory of the machine, and what a container leaves of it."""
    sizes = {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (
            line.partition(":") for line in _read(Path("/proc/meminfo")).splitlines()
        )
    }
    limit = _read(_CONTROL / "memory.max")
    bound = f", the container's limit is {int(limit) / GIB:.0f} GiB" if limit.isdigit() else ""
    return Fact(
        "memory",
        ACTIVE,
        f"{sizes['MemAvailable'] / GIB:.0f} of {sizes['MemTotal'] / GIB:.0f} GiB available{bound}",
    )


def shared_memory(need: int, what: str) -> Fact:
    """Free space of /dev/shm beside ``need`` bytes, used for ``what``."""
    free = shutil.disk_usage(SHARED).free if SHARED.exists() else 0
    text = f"{free / GIB:.1f} GiB free, {need / GIB:.2f} GiB {what}"
    return found(
        f"{SHARED}",
        text if free < need else None,
        text,
        "make it larger: docker run --shm-size=..., or mount -o remount,size=...",
    )


def open_files(need: int) -> Fact:
    """The limit of open files beside ``need``: each tensor on its way from a loader's worker holds
    one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (
        _UNLIMITED if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard)
    )
    text = f"{_limit(soft)} for a process, {need} are enough"
    return found(
        "open files",
        text if soft < need else None,
        text,
        f"ulimit -n {max(need, 65536)} (at most {_limit(hard)} without root)",
    )


def _limit(value: int) -> str:
    return "unlimited" if value == _UNLIMITED else str(value)


def _read(path: Path) -> str:
    """The text of a file of the kernel's, "" where there is none."""
    return path.read_text().strip() if path.exists() else ""
