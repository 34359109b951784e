"""Draw one sample of a sharded dataset as training sees it.

python launch/inspect_shards.py shards --key treesat-abies-alba-1-1005 --out sample.png
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.audit.inspection import draw_sample
from data.stream.settings import DataSettings, ViewSettings
from launch.cli import run


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", help="folder made by launch/build_shards.py")
    parser.add_argument("--key", help="sample to draw; without it the order of the seed decides")
    parser.add_argument(
        "--step",
        type=int,
        default=0,
        help="how often the sample was used before (with --key), or "
        "position in the order (without)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the run")
    parser.add_argument(
        "--global_cells", type=int, default=8, help="side of a global view in 10 m cells"
    )
    parser.add_argument(
        "--local_cells", type=int, default=4, help="side of a local view in 10 m cells"
    )
    parser.add_argument("--out", required=True, type=Path, help="picture to write (.png)")
    options = parser.parse_args()
    views = ViewSettings(global_cells=options.global_cells, local_cells=options.local_cells)
    settings = DataSettings(shards=options.shards, views=views)
    drawn = draw_sample(
        settings, options.out, key=options.key, step=options.step, seed=options.seed
    )
    print(f"{options.out}: {drawn}")


if __name__ == "__main__":
    run(main)
