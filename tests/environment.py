"""The environment of the commands that tests start."""

import os
import sys
from pathlib import Path

from tests.paths import ROOT

BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    """This environment with the project importable, one thread a process, and the CPU as
    DeepSpeed's accelerator."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
