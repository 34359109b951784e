"""Write a run's report: one HTML file that needs no network, and evaluation.json beside the run's
other files.

python launch/report.py runs/demo/pretrain
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from engine.report.page import write
from launch.cli import run


def main() -> None:
    """Parse the command line and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of launch/pretrain.py")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to; without it report.html in the run folder",
    )
    parser.add_argument(
        "--shards", metavar="FOLDER", help="where the dataset lies now, if not where the run had it"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=512,
        metavar="N",
        help="evaluate at most so many (default 512)",
    )
    given = parser.parse_args()
    print(f"report: {write(given.run, given.out, given.shards, given.samples)}", flush=True)


if __name__ == "__main__":
    run(main)
