"""Compare the losses of runs of the same data and seed, step by step, with those of the first.

python launch/compare_runs.py reference=runs/off kernels=runs/on --plot comparison.png
"""

import argparse
import sys
from pathlib import Path

from engine.errors import ConfigError

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from engine.plot_file import check_plot, save_plot
from engine.report import comparison
from launch.cli import run


def main() -> None:
    """Parse the command line, print the table, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", metavar="NAME=FOLDER", help="run folders of launch/pretrain.py"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the comparison")
    given = parser.parse_args()
    check_plot(given.plot)
    folders = dict(entry.split("=", 1) for entry in given.runs if "=" in entry)
    if len(folders) < max(2, len(given.runs)):
        raise ConfigError(
            f"runs: expected two or more of NAME=FOLDER with unlike names, found {' '.join(given.runs)}"
        )
    runs = comparison.read({name: Path(folder) for name, folder in folders.items()})
    found = comparison.distances(runs)
    print(comparison.table(found), flush=True)
    save_plot(given.plot, lambda: comparison.draw(runs, found))


if __name__ == "__main__":
    run(main)
