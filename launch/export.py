"""Export trained weights: one safetensors file and one JSON file, loadable without DeepSpeed.

python launch/export.py runs/demo/pretrain --out exported
python -c "from engine.weights import load; print(load('exported').report)"
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from engine.pretrained.export import TYPES, export
from engine.pretrained.weights import KINDS
from launch.cli import run


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "path", type=Path, help="run folder (its newest checkpoint), checkpoint, or another export"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--weights", choices=KINDS, default="teacher", help="which model (default: teacher)"
    )
    parser.add_argument(
        "--dtype", choices=TYPES, default="float32", help="type of the numbers (default: float32)"
    )
    parser.add_argument("--heads", action="store_true", help="also what only pre-training needs")
    given = parser.parse_args()
    print(
        "\n".join(export(given.path, given.out, given.weights, given.dtype, given.heads)),
        flush=True,
    )


if __name__ == "__main__":
    run(main)
