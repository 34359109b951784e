"""Count the FLOPs of a training step, module by module."""

import argparse

from engine.cost.report import PRESETS, flops_command
from launch.options import add_config_options, add_json_option, add_plot_option
from launch.output import check_json, show

EXAMPLES = """\
  skysense flops --preset paper
  skysense flops --config ds_configs/one_gpu.json --set skysense.data.views.global_pixels.ms=32"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help=f"instead of --config, a configuration of this project: {', '.join(PRESETS)}",
    )
    add_config_options(parser)
    add_json_option(parser)
    add_plot_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the cost, and draw it."""
    check_json(options.json)
    text, record = flops_command(
        preset=options.preset,
        path=options.config,
        overrides=options.overrides,
        plot=options.plot,
    )
    show(text, record, options.json)
