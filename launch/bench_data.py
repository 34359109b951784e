"""Time how samples become cut views: our stream, a stock webdataset pipeline, and source rasters.

All read the same samples, in one run.
"""

import argparse
from pathlib import Path

from data.bench.speed import compare_speed, prepare_samples, watch_memory
from data.errors import InputError
from launch.options import add_json_option
from launch.output import check_json, progress, write_json

EXAMPLES = "  skysense bench data --archive archive --work bench --samples 4 --rounds 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--archive", type=Path, help="made by skysense prepare from the bundled samples; mosaicked"
    )
    parser.add_argument(
        "--work",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="folder of the full-size samples; used again when it is there",
    )
    parser.add_argument("--tiles", type=int, default=16, metavar="N", help="different samples (16)")
    parser.add_argument(
        "--samples", type=int, default=40, metavar="N", help="samples a round and pipeline (40)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="the pipelines take turns so often (3)"
    )
    parser.add_argument(
        "--memory",
        type=int,
        default=0,
        metavar="SAMPLES",
        help="instead: run our stream alone over so many samples and watch its memory",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> None:
    """Make the samples if they are not there, measure and print."""
    if min(options.tiles, options.samples, options.rounds) < 1 or options.memory < 0:
        raise InputError(
            "expected --tiles, --samples and --rounds of at least 1 and --memory of at least 0"
        )
    check_json(options.json)
    say = progress(options.json)
    prepare_samples(options.work, options.archive, tiles=options.tiles)
    if options.memory:
        figures = watch_memory(options.work, samples=options.memory, say=say)
    else:
        figures = compare_speed(
            options.work, samples=options.samples, rounds=options.rounds, say=say
        )
    write_json(figures, options.json)
