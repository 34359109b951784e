"""Draw one sample of a dataset as training sees it: rasters, series with dates, views and crops."""

import argparse
from pathlib import Path

from data.audit.page.inspection import draw_sample
from data.stream.settings import DataSettings, ViewSettings
from data.tiles.splits import ALL

EXAMPLES = "  skysense inspect shards --key treesat-abies-alba-1-1005 --out sample.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("shards", help="folder made by skysense shards")
    parser.add_argument("--key", help="sample to draw; without it the order of the seed decides")
    parser.add_argument(
        "--step",
        type=int,
        default=0,
        metavar="N",
        help="how often the sample was used before (with --key), or the position in the order "
        "(without); default 0",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the run (0)")
    parser.add_argument(
        "--global_cells", type=int, default=8, help="side of a global view in 10 m cells (8)"
    )
    parser.add_argument(
        "--local_cells", type=int, default=4, help="side of a local view in 10 m cells (4)"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="picture to write (.png)"
    )


def run(options: argparse.Namespace) -> None:
    """Draw the sample and write the picture."""
    views = ViewSettings(global_cells=options.global_cells, local_cells=options.local_cells)
    settings = DataSettings(shards=options.shards, split=ALL, views=views)
    drawn = draw_sample(
        settings, options.out, key=options.key, step=options.step, seed=options.seed
    )
    print(f"{options.out}: {drawn}")
