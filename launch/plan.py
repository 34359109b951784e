"""Plan a run on many GPUs: memory of a rank, exchange, time and cost. It needs no GPU."""

import argparse

from engine.errors import ConfigError
from engine.planning.advice import tries
from engine.planning.cards import CARDS, card_of
from engine.planning.plan import plan
from engine.planning.text import advice_lines, lines_of
from engine.planning.time import Efficiency
from launch.options import add_config_options, add_json_option
from launch.output import check_json, progress, show

EXAMPLES = """\
  skysense plan --config ds_configs/paper_128gpu.json --world_size 128 --gpu h20
  skysense plan --config ds_configs/one_gpu.json --gpu h200 --advise --price 3.5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_config_options(parser, required=True)
    parser.add_argument("--world_size", type=int, default=1, metavar="N", help="ranks (1)")
    parser.add_argument("--gpu", required=True, metavar="NAME", help=f"one of {', '.join(CARDS)}")
    parser.add_argument("--price", type=float, metavar="P", help="of an hour of one GPU")
    parser.add_argument(
        "--measured",
        type=float,
        metavar="SECONDS",
        help="a measured step of this run: the assumed efficiencies are scaled to it",
    )
    parser.add_argument(
        "--advise", action="store_true", help="also plan each skysense.recompute and choose one"
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the plan."""
    check_json(options.json)
    card = card_of(options.gpu)
    if options.measured is not None and options.measured <= 0:
        raise ConfigError(f"--measured: expected seconds above 0, found {options.measured:g}")
    found = plan(
        options.config,
        options.overrides,
        world_size=options.world_size,
        card=card,
        efficiency=Efficiency(),
    )
    if options.measured is not None:
        found = found.calibrated(options.measured)
    lines = lines_of(found, price=options.price)
    record = found.record()
    if options.advise:
        plans = tries(
            options.config,
            options.overrides,
            world_size=options.world_size,
            card=card,
            efficiency=found.efficiency,
            say=progress(options.json),
        )
        lines += ["", *advice_lines(plans)]
        record["tried"] = [tried.record() for tried in plans]
    show("\n".join(lines), record, options.json)
