"""Time one packed forward pass against one pass for each sensor and view size, or for each image.

All give equal values, which is checked first.
"""

import argparse

import torch

from engine.bench.packed import compare_packed
from launch.options import add_json_option
from launch.output import check_json, progress, write_json

EXAMPLES = "  skysense bench packed --spec small --rounds 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--spec", default="small", metavar="NAME", help="a model of models/variants.py (small)"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="samples (1)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="the candidates take turns so often (5)"
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of the CPU"
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> None:
    """Compare and print."""
    check_json(options.json)
    comparison = compare_packed(
        options.spec,
        batch=options.batch,
        rounds=options.rounds,
        threads=options.threads,
        say=progress(options.json),
    )
    write_json(comparison, options.json)
