"""Write the manifest and the labels of a small labelled set, for docs/learning.md."""

import argparse
from pathlib import Path

from data.learning import bigearthnet, ucmerced

EXAMPLES = """\
  skysense learning_set ucmerced --root ucmerced_hr --out runs/learn/ucmerced"""
SETS = {"ucmerced": ucmerced.write, "bigearthnet": bigearthnet.write}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("name", choices=list(SETS), help="the set")
    parser.add_argument(
        "--root", type=Path, required=True, metavar="FOLDER", help="where its files are"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="for manifest and labels"
    )


def run(options: argparse.Namespace) -> None:
    """Write the files."""
    SETS[options.name](options.root, options.out)
    print(f"{options.out}: manifest.jsonl and labels.csv of {options.name} written")
