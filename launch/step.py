"""Measure real training steps: time by part, memory, data wait, share of the peak.

The run starts anew from real shards and leaves no run folder. Without a launcher it has one rank.
"""

import argparse
from pathlib import Path

from engine.profile.report import step_command
from launch.options import (
    STANDARD_OUTPUT,
    add_config_options,
    add_json_option,
    add_plot_option,
)

EXAMPLES = """\
  skysense step --config ds_configs/one_gpu.json --set skysense.data.shards=shards
  deepspeed --module launch step --config ds_configs/demo_cpu.json --json step.json

With --json under a launcher, name a file: standard output has the launcher's lines too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_config_options(parser, required=True)
    parser.add_argument(
        "--steps", type=int, default=20, metavar="N", help="steps that are timed (20)"
    )
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="steps before them (3)")
    add_json_option(parser)
    add_plot_option(parser)
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FOLDER",
        help="keep a Chrome trace of one step, a file for each rank",
    )


def run(options: argparse.Namespace) -> int:
    """Measure on all ranks; the first one prints."""
    as_json = options.json == STANDARD_OUTPUT
    json_file = None
    if not as_json:
        json_file = options.json
    return step_command(
        options.config,
        options.overrides,
        warmup=options.warmup,
        steps=options.steps,
        as_json=as_json,
        json_file=json_file,
        plot=options.plot,
        trace=options.trace,
    )
