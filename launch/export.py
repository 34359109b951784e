"""Export trained weights: one safetensors file and one JSON file, loadable without DeepSpeed.

In Python, engine.pretrained.weights.load(FOLDER) makes a model of them.
"""

import argparse
from pathlib import Path

from engine.pretrained.export import TYPES, export
from engine.pretrained.source import KINDS

EXAMPLES = "  skysense export runs/demo/pretrain --out exported"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "path", type=Path, help="run folder (its newest checkpoint), checkpoint, or another export"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--weights", choices=KINDS, default="teacher", help="which model (teacher)")
    parser.add_argument(
        "--dtype", choices=TYPES, default="float32", help="type of the numbers (float32)"
    )
    parser.add_argument("--heads", action="store_true", help="also what only pre-training needs")


def run(options: argparse.Namespace) -> None:
    """Export the weights and say what was written."""
    lines = export(
        options.path,
        options.out,
        options.weights,
        dtype=options.dtype,
        heads=options.heads,
    )
    print("\n".join(lines), flush=True)
