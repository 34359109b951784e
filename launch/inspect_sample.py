"""Draw one sample of a dataset as training sees it: rasters, series with dates, views and crops."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from data.audit.page.inspection import draw_sample
from data.errors import InputError
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
    for name in ("global", "local"):
        parser.add_argument(
            f"--{name}_pixels",
            nargs="+",
            default=[],
            metavar="SENSOR=PIXELS",
            help=f"pixels along a side of a {name} view, such as hr=256 ms=32 (as the defaults of "
            f"skysense.data.views.{name}_pixels)",
        )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="picture to write (.png)"
    )


def run(options: argparse.Namespace) -> None:
    """Draw the sample and write the picture."""
    settings = DataSettings(shards=options.shards, split=ALL, views=views_of(options))
    drawn = draw_sample(
        settings, options.out, key=options.key, step=options.step, seed=options.seed
    )
    print(f"{options.out}: {drawn}")


def views_of(options: argparse.Namespace) -> ViewSettings:
    """The paper's views with the sizes that the options name.

    Raises:
        InputError: a size is no sensor with a number.
    """
    paper = ViewSettings()
    global_pixels = _sides("--global_pixels", options.global_pixels)
    local_pixels = _sides("--local_pixels", options.local_pixels)
    return replace(
        paper,
        global_pixels={**paper.global_pixels, **global_pixels},
        local_pixels={**paper.local_pixels, **local_pixels},
    )


def _sides(option: str, pairs: Iterable[str]) -> dict[str, int]:
    """Pixels by sensor, as an option names them.

    Raises:
        InputError: one is no name and number.
    """
    sides = {}
    for pair in pairs:
        sensor, _, pixels = pair.partition("=")
        if not sensor or not pixels.isdecimal():
            raise InputError(f"{option}: expected SENSOR=PIXELS, such as ms=32, found {pair!r}")
        sides[sensor] = int(pixels)
    return sides
