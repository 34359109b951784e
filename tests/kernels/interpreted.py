"""Runs one of the project's commands with Triton's interpreter mended: python -m
tests.kernels.interpreted FILE ..."""

import runpy
import sys
from pathlib import Path

from tests.kernels.interpreter import mend

if __name__ == "__main__":
    mend()
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # as python does for a script
    runpy.run_path(sys.argv[0], run_name="__main__")
