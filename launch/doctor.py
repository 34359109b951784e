"""Say what is active on this machine and why.

With a configuration, also say what a run of it would use and what it lacks. Exit status: 0 if the
configuration's needs are met, 2 with one line otherwise.
"""

import argparse

from engine.doctor.report import doctor_command
from launch.options import add_config_options, add_json_option
from launch.output import check_json, show

EXAMPLES = """\
  skysense doctor
  skysense doctor --config ds_configs/one_gpu.json --set skysense.data.shards=shards
  skysense doctor --config ds_configs/paper_128gpu.json --ranks 128 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_config_options(parser)
    parser.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="ranks of the run (default: the GPUs here; without any, the configuration's ep_size)",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the facts. Raises ConfigError behind them if the configuration lacks something."""
    check_json(options.json)
    diagnosis = doctor_command(options.config, options.overrides, ranks=options.ranks)
    show(diagnosis.text(), diagnosis.record(), options.json)
    if diagnosis.error is not None:
        raise diagnosis.error
