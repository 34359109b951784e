"""Plan a run on many GPUs: memory of a rank, exchange, time and cost. It needs no GPU."""

import argparse
from pathlib import Path

from engine.errors import ConfigError
from engine.planning.advice import advise
from engine.planning.cards import CARDS, card_of
from engine.planning.figure import picture
from engine.planning.making import plan
from engine.planning.plan import Setting
from engine.planning.scaling import scale
from engine.planning.text import advice_lines, lines_of, scaling_lines
from engine.plot_file import check_plot, save_plot
from launch.options import add_config_options, add_json_option
from launch.output import check_json, progress, show

EXAMPLES = """\
  skysense plan --config ds_configs/paper_128gpu.json --world_size 128 --gpu h20
  skysense plan --config ds_configs/one_gpu.json --gpu h200 --advise --price 3.5
  skysense plan --config ds_configs/eight_gpus.json --world_size 8 --gpu h200 --plot ranks.png"""


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
        "--advise",
        action="store_true",
        help="also plan other settings, and name the fastest that fits",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="also plan it on 1 to 1024 ranks and draw them (.png, .svg or .pdf)",
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the plan."""
    check_json(options.json)
    check_plot(options.plot)
    if options.measured is not None and options.measured <= 0:
        raise ConfigError(f"--measured: expected seconds above 0, found {options.measured:g}")
    say = progress(options.json)
    setting = Setting(
        path=options.config,
        overrides=tuple(options.overrides),
        world_size=options.world_size,
        card=card_of(options.gpu),
    )
    planned = plan(setting)
    if options.measured is not None:
        planned = planned.calibrated(options.measured)
    lines = lines_of(planned, price=options.price)
    record = planned.record()
    if options.advise:
        advice = advise(planned.setting, say=say)
        lines += ["", *advice_lines(advice, planned)]
        record["advice"] = advice.record()
    if options.plot is not None:
        scaling = scale(planned, say=say)
        lines += ["", *scaling_lines(scaling)]
        record["scaling"] = scaling.record()
        save_plot(options.plot, lambda: picture(scaling, planned))
    show("\n".join(lines), record, options.json)
