"""Compare the losses of runs of the same data and seed, step by step, with those of the first.

Runs of unlike length are compared over the steps that all of them have.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.errors import ConfigError
from engine.plot_file import check_plot, save_plot
from engine.report import comparison
from launch.options import add_plot_option

EXAMPLES = "  skysense compare reference=runs/off kernels=runs/on --plot comparison.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "runs", nargs="+", metavar="NAME=FOLDER", help="run folders of pre-trainings"
    )
    add_plot_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the table of differences, and draw them."""
    check_plot(options.plot)
    runs = comparison.read(named_folders(options.runs))
    differences = comparison.distances(runs)
    print(comparison.steps_line(runs))
    print(comparison.table(differences), flush=True)
    save_plot(options.plot, lambda: comparison.draw(runs, differences))


def named_folders(entries: Sequence[str]) -> dict[str, Path]:
    """``NAME=FOLDER`` entries as a dictionary.

    Raises:
        ConfigError: Fewer than two entries, one without a name, or a name that stands twice.
    """
    folders = {}
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if equals:
            folders[name] = Path(folder)
    if len(folders) < max(2, len(entries)):
        raise ConfigError(
            "runs: expected two or more of NAME=FOLDER with different names, found "
            + " ".join(entries)
        )
    return folders
