"""Write the table of classes, with the tags and codes that fall on them, as a page.

python launch/list_classes.py --out docs/classes.md
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.files import check_place, write_whole
from data.osm.class_page import page
from launch.cli import run


def main() -> None:
    """Parse the command line, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file to write; printed if not given")
    out = parser.parse_args().out
    if out:
        check_place("--out", out)
        write_whole(out, page())
    else:
        print(page(), end="")


if __name__ == "__main__":
    run(main)
