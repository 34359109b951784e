"""Real raster files -> zarr archive of co-registered tiles.

A run that was stopped or killed goes on when the same command is started again. The exit status is
0 when all tiles are made, and 3 when the archive is there but some tiles were rejected.
"""

import argparse
import sys

from data.jobs.tasks import WorkerError
from data.prepare.make import BugError
from data.prepare.record import from_json
from data.prepare.run import prepare
from launch.options import add_place_options, add_workers_option, place_of
from launch.stoppable import stoppable

EXAMPLES = """\
  skysense prepare --manifest data/samples/manifest.jsonl --out archive

The bundled samples are part of the source checkout, not of the installed package."""

EXIT_BUG = 1  # as Python leaves after an exception
EXIT_SOME_REJECTED = 3  # 2 is wrong input, and then there is no archive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--manifest", required=True, help="which sources make which tile; see docs/manifest.md"
    )
    parser.add_argument(
        "--tiles", help="list of the tiles to cut, for a STAC item collection without the key scene"
    )
    parser.add_argument(
        "--sensors",
        metavar="FILE",
        help="sensors of your own, as JSON; see docs/sensors.md and skysense sensors",
    )
    parser.add_argument("--out", required=True, help="folder of the archive to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an archive that is there")
    add_workers_option(parser)
    add_place_options(parser)
    parser.add_argument(
        "--max_rejected",
        type=int,
        metavar="N",
        help="stop when more tiles are rejected (default: no limit)",
    )
    parser.add_argument(
        "--retry_rejected",
        action="store_true",
        help="try the tiles again that an unfinished or a finished run has rejected; of a "
        "corrected manifest make also those that have changed or are new",
    )
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an unfinished run has made"
    )


def run(options: argparse.Namespace) -> int:
    """Prepare the archive, and continue an unfinished one."""
    reports: list[dict] = []

    def work() -> None:
        report = prepare(
            manifest=options.manifest,
            tiles=options.tiles,
            sensors=options.sensors,
            out=options.out,
            overwrite=options.overwrite,
            workers=options.workers,
            place=place_of(options),
            max_rejected=options.max_rejected,
            retry_rejected=options.retry_rejected,
            restart=options.restart,
            say=lambda line: print(line, flush=True),
        )
        print(f"{options.out}: {_summary(report)}; see report.json in it")
        reports.append(report)

    try:
        status = stoppable(work)
    except (BugError, WorkerError) as bug:
        print(f"fault: {bug}", file=sys.stderr)
        return EXIT_BUG
    if any(report["rejected"] for report in reports):
        return EXIT_SOME_REJECTED
    return status


def _summary(report: dict) -> str:
    """``24 tiles, 1 rejected, 2 with doubtful numbers``."""
    text = f"{len(report['tiles'])} tiles, {len(report['rejected'])} rejected"
    records = [from_json(fields) for fields in report["tiles"]]
    doubtful = [record for record in records if record.is_doubtful]
    if doubtful:
        text += f", {len(doubtful)} with doubtful numbers"
    return text
