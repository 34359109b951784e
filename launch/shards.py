"""Zarr archive -> training shards: plain tars, sidecar indexes and a manifest.

A run that was stopped or killed goes on when the same command is started again.
"""

import argparse

from data.errors import InputError
from data.shards.encode import ShardOptions
from data.shards.pack import pack
from data.shards.records import Manifest
from data.stream.settings import ViewSettings
from data.tiles.splits import SPLITS
from launch.options import add_place_options, add_workers_option, place_of
from launch.stoppable import stoppable

EXAMPLES = "  skysense shards --archive archive --out shards"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--archive", required=True, help="folder made by skysense prepare")
    parser.add_argument("--out", required=True, help="folder of the shards to make")
    parser.add_argument(
        "--samples_per_shard", type=int, default=256, metavar="N", help="tiles in one tar (256)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order in which tiles are packed (0)"
    )
    parser.add_argument(
        "--hr_codec",
        choices=("jpeg", "png"),
        default="jpeg",
        help="of the high-resolution images (jpeg); png keeps every value",
    )
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG images (95)")
    parser.add_argument(
        "--split", choices=SPLITS, default="", help="pack the tiles of this split only (all)"
    )
    parser.add_argument(
        "--native_cells",
        type=int,
        default=ViewSettings().native_cells,
        metavar="N",
        help="side of the ground, in 10 m cells, that a global view of the run shows pixel by "
        "pixel: its pixels of ms or sar, or those of hr / 32; tells which tiles are too large "
        "(%(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="remove a dataset that is there, first"
    )
    add_workers_option(parser)
    add_place_options(parser)
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an unfinished run has written"
    )


def run(options: argparse.Namespace) -> int:
    """Pack the shards, and continue unfinished ones."""
    shard_options = ShardOptions(
        options.samples_per_shard,
        options.seed,
        hr_codec=options.hr_codec,
        quality=options.quality,
        split=options.split,
    )
    if options.native_cells < 1:
        raise InputError(f"--native_cells: expected 1 or more, found {options.native_cells}")

    def work() -> None:
        manifest = pack(
            options.archive,
            options.out,
            shard_options,
            overwrite=options.overwrite,
            workers=options.workers,
            place=place_of(options),
            restart=options.restart,
            native_cells=options.native_cells,
            say=lambda line: print(line, flush=True),
        )
        print(f"{options.out}: {describe(manifest)}")

    return stoppable(work)


def describe(manifest: Manifest) -> str:
    """A dataset in one line."""
    splits = ""
    if len(manifest.splits) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in manifest.splits.items())
        splits = f" ({counts})"
    return (
        f"{manifest.samples} samples{splits} in {len(manifest.shards)} shards, "
        f"{manifest.size / 1e6:.1f} MB, {len(manifest.region_table())} regions, "
        f"fingerprint {manifest.fingerprint}"
    )
