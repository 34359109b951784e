"""Write a run's report: one HTML file that needs no network.

Its figures also go to evaluation.json in the run folder.
"""

import argparse
from pathlib import Path

from engine.report.page import write

EXAMPLES = "  skysense report runs/demo/pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run folder of a pre-training")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="page to write (default: report.html in the run folder)",
    )
    parser.add_argument(
        "--shards",
        metavar="FOLDER",
        help="where the dataset is now (default: where the run had it)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=512,
        metavar="N",
        help="evaluate at most so many samples (512)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the report."""
    page = write(options.run_dir, out=options.out, shards=options.shards, samples=options.samples)
    print(f"report: {page}", flush=True)
