"""Count parameters: every count that the paper prints beside ours, or one model part by part."""

import argparse

from engine.cost.parameter_table import params_command
from launch.options import add_config_options, add_json_option, add_plot_option
from launch.output import check_json, show

EXAMPLES = """\
  skysense params
  skysense params --spec experts_16
  skysense params --config ds_configs/one_gpu.json --set skysense.model.queries=8"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--spec",
        metavar="NAME",
        help="one model of models/variants.py instead of the paper's counts",
    )
    add_config_options(parser)
    add_json_option(parser)
    add_plot_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the counts, and draw them."""
    check_json(options.json)
    text, record = params_command(
        spec=options.spec,
        path=options.config,
        overrides=options.overrides,
        plot=options.plot,
    )
    show(text, record, options.json)
