"""Real raster files -> zarr archive of co-registered tiles.

A run that was stopped or killed goes on when the same command is started again.
"""

import argparse

from data.prepare.run import prepare
from launch.options import add_workers_option
from launch.stoppable import stoppable

EXAMPLES = """\
  skysense prepare --manifest data/samples/manifest.jsonl --out archive

The bundled samples are part of the source checkout, not of the installed package."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--manifest", required=True, help="which sources make which tile; see docs/manifest.md"
    )
    parser.add_argument(
        "--tiles", help="list of the tiles to cut, for a manifest that is a STAC item collection"
    )
    parser.add_argument(
        "--sensors",
        metavar="FILE",
        help="sensors of your own, as JSON; see docs/manifest.md and skysense sensors",
    )
    parser.add_argument("--out", required=True, help="folder of the archive to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an archive that is there")
    add_workers_option(parser)
    parser.add_argument(
        "--max_rejected",
        type=int,
        metavar="N",
        help="stop when more tiles are rejected (default: no limit)",
    )
    parser.add_argument(
        "--retry_rejected",
        action="store_true",
        help="try the tiles again that an unfinished run has rejected",
    )
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an unfinished run has made"
    )


def run(options: argparse.Namespace) -> int:
    """Prepare the archive, and continue an unfinished one."""

    def work() -> None:
        report = prepare(
            manifest=options.manifest,
            tiles=options.tiles,
            sensors=options.sensors,
            out=options.out,
            overwrite=options.overwrite,
            workers=options.workers,
            max_rejected=options.max_rejected,
            retry_rejected=options.retry_rejected,
            restart=options.restart,
            say=lambda line: print(line, flush=True),
        )
        print(
            f"{options.out}: {len(report['tiles'])} tiles, {len(report['rejected'])} rejected; "
            "see report.json in it"
        )

    return stoppable(work)
