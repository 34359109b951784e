"""Compiles the null card and makes steps on it, each in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from tests.null_card.step import PREFIX
from tests.paths import PATIENCE, ROOT

FOLDER = Path(__file__).parent
# Where the wheels of torch's CUDA build bring headers; the second has what the first lacks.
HEADERS = ("nvidia/cu13/include", "triton/backends/nvidia/include")


def compile_card(folder: Path) -> Path:
    """The card as a library in ``folder``. Skips the test where it cannot be compiled."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    packages = Path(sysconfig.get_paths()["purelib"])
    headers = [packages / name for name in HEADERS]
    if torch.version.cuda is None or not all(path.is_dir() for path in headers):
        pytest.skip("torch is built without CUDA")
    library = folder / "null_card.so"
    command = [compiler, "-std=gnu11", "-shared", "-fPIC", "-O1", "-o", str(library)]
    for path in headers:
        command.append(f"-I{path}")
    command += [str(FOLDER / "null_card.c"), str(FOLDER / "nothing.c")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (folder / "libcuda.so.1").symlink_to(library)  # the driver, which torch opens by this name
    return library


def step(library: Path, config: Path, *, world: int, kernels: str, overrides: list[str]) -> dict:
    """The record of a step of ``config`` on ``world`` cards: see ``tests.null_card.step``."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(library.parent),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cuda",
        "SKYSENSE_KERNELS": kernels,
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    command = [sys.executable, "-m", "tests.null_card.step", str(config), str(world), *overrides]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    for line in done.stdout.splitlines():
        if line.startswith(PREFIX):
            return json.loads(line.removeprefix(PREFIX))
    raise RuntimeError(f"null card: {done.stderr[-3000:]}")
