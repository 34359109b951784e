"""Look at every node of a run before it begins.

On each rank: versions, code, driver, GPUs, what the configuration needs, which dataset it sees, the
time of a matrix product and of exchanges within the node, with two other nodes and of all, and the
clock. Each rank leaves a report. With --judge, in one place behind the ranks, it prints a line of
figures and one line for each node that the run should do without. Exit status of --judge: 0 if the
run can begin, 1 with bad nodes, 2 if all nodes have the same problem.
"""

import argparse
import sys
from pathlib import Path

from launch import pretrain

PATIENCE = 300.0  # seconds

EXAMPLES = """\
  srun skysense preflight --config ds_configs/paper_128gpu.json --folder runs/a/preflight/7
  skysense preflight --config ds_configs/one_gpu.json --folder f --judge --nodes node1 --ranks 8"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    pretrain.add_arguments(parser)  # a batch file gives both the same words
    parser.add_argument(
        "--folder",
        type=Path,
        required=True,
        help="for the reports of this start; all nodes see it",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help=f"after which a rank that waits for others ends ({PATIENCE:g})",
    )
    parser.add_argument("--judge", action="store_true", help="judge the reports in the folder")
    parser.add_argument("--nodes", default="", help="of the job, blanks between; for --judge")
    parser.add_argument("--ranks", type=int, help="of the job; for --judge")


def run(options: argparse.Namespace) -> int:
    """Look around as one rank, or judge what all have found."""
    from engine.doctor.preflight import judge_folder, preflight
    from engine.errors import ConfigError

    if not options.judge:
        preflight(options.config, options.overrides, options.folder, patience=options.patience)
        return 0
    nodes = options.nodes.split()
    if not nodes or options.ranks is None:
        raise ConfigError("--judge: expected --nodes and --ranks of the job, found one missing")
    judgement = judge_folder(options.folder, nodes, options.ranks)
    print(judgement.summary, flush=True)
    for line in judgement.lines():
        print(f"error: {line}", file=sys.stderr)
    return judgement.exit_code
