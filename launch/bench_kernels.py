"""Time every kernel against eager PyTorch, torch.compile and the best library call, in one run.

Values come first, then time, memory and the share of what the device reaches at best. With a GPU
the sizes are the paper's; without one they are small, and the kernels themselves are left out.
Exit status 1 where values differ.
"""

import argparse

import torch

from engine.bench.cases.run import CASES, SIZES, compare_kernels
from engine.bench.picture import picture
from engine.plot_file import check_plot, save_plot
from launch.options import add_json_option, add_plot_option
from launch.output import check_json, progress, write_json

EXAMPLES = """\
  skysense bench kernels --sizes tiny --rounds 1 --only sinkhorn
  skysense bench kernels --json kernels.json --plot kernels.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CASES,
        default=list(CASES),
        metavar="NAME",
        help=f"some of {', '.join(CASES)}",
    )
    parser.add_argument(
        "--sizes",
        choices=SIZES,
        help="paper (with a GPU), small (without), or tiny: seconds, to see that the command works",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="the candidates take turns so often (5)"
    )
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of the CPU"
    )
    add_json_option(parser)
    add_plot_option(parser)


def run(options: argparse.Namespace) -> int:
    """Compare, print and draw."""
    check_json(options.json)
    check_plot(options.plot)
    say = progress(options.json)
    comparison = compare_kernels(
        options.only,
        sizes=options.sizes,
        rounds=options.rounds,
        threads=options.threads,
        say=say,
    )
    write_json(comparison, options.json)
    save_plot(options.plot, lambda: picture(comparison))
    failed = [case for case in comparison["cases"] if case["failed"]]
    for case in failed:
        say(f"FAILED: {case['case']}, {case['size']}")
    if failed:
        return 1
    return 0
