"""Measure what codecs cost one training sample.

Bytes kept, bytes read, CPU time to decode what is drawn, and loss.
"""

import argparse
from pathlib import Path

from data.bench.codecs import CodecOptions, compare_codecs
from launch.options import add_json_option
from launch.output import check_json, progress, write_json

EXAMPLES = "  skysense bench codecs archive --repeats 1 --draws 1 --cells 16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "archive", type=Path, help="archive made by skysense prepare from the bundled samples"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="timings of each candidate (5)"
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=8,
        metavar="N",
        help="draws of views and frames that one timing covers (8)",
    )
    parser.add_argument(
        "--cells",
        type=int,
        default=64,
        metavar="N",
        help="side of the sample in 10 m cells, a multiple of 16 (64)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the mosaic and the draws (0)")
    add_json_option(parser)


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    chosen = CodecOptions(
        repeats=options.repeats, draws=options.draws, cells=options.cells, seed=options.seed
    )
    check_json(options.json)
    comparison = compare_codecs(options.archive, chosen, say=progress(options.json))
    write_json(comparison, options.json)
