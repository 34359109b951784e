"""Write the table of classes, with the tags and codes that fall on them, as a Markdown page."""

import argparse
from pathlib import Path

from data.files import check_place, write_whole
from data.osm.class_page import page

EXAMPLES = """\
  skysense classes
  skysense classes --out classes.md"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="file to write (default: print the page)"
    )


def run(options: argparse.Namespace) -> None:
    """Write or print the page."""
    if options.out is None:
        print(page(), end="")
        return
    check_place("--out", options.out)
    write_whole(options.out, page())
