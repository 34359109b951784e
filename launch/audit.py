"""Audit a dataset of shards: read and check every member, and write audit.html and audit.json.

Exit status: 0 when every member is whole, 1 when one is damaged (the audit is written all the
same), 2 when the input is wrong. What is merely worth a look does not change it.
"""

import argparse
from pathlib import Path

from data.audit.record import Record
from data.audit.report import JSON_FILE, PAGE_FILE, make_folder, write
from data.audit.run import audit, spread
from data.audit.sections import VERDICT_WORDS
from data.audit.statistics import write_statistics
from data.audit.summary import summarise
from data.files import check_place
from data.jobs.progress import Progress
from data.shards.dataset import ShardDataset
from launch.options import add_place_options, add_workers_option, place_of

EXAMPLES = "  skysense audit shards --out audit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("shards", help="folder made by skysense shards")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="FOLDER",
        help=f"where {JSON_FILE} and {PAGE_FILE} go",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="read so many samples, evenly spread (default: all)",
    )
    add_workers_option(parser)
    add_place_options(parser)
    parser.add_argument(
        "--write_statistics",
        type=Path,
        metavar="FILE",
        help="also write a sensors file with the measured means and deviations",
    )


def run(options: argparse.Namespace) -> int:
    """Audit the dataset, write both files and print the verdicts."""
    dataset = ShardDataset.open(options.shards)
    if options.write_statistics is not None:
        check_place("--write_statistics", options.write_statistics)
    place = place_of(options)
    samples = spread(len(dataset), options.samples)
    make_folder(options.out)
    progress = Progress(
        len(samples), done=0, unit="samples", say=lambda line: print(line, flush=True)
    )

    def report(record: Record) -> None:
        notes = [f"{failure.shard}: {failure.reason}" for failure in record.failures]
        progress.step(record.key or f"sample {record.sample}", notes, urgent=bool(notes))

    tally, pixels = audit(
        dataset,
        samples=options.samples,
        workers=options.workers,
        place=place,
        on_record=report,
    )
    summary = summarise(dataset, tally, pixels)
    write(options.out, dataset, summary)
    for answer in summary.verdicts:
        word = VERDICT_WORDS[answer.verdict]
        print(f"{word}: {answer.question} {answer.numbers} (limit: {answer.limit})")
    if options.write_statistics is not None:
        print("\n".join(write_statistics(options.write_statistics, pixels)))
    print(f"audit: {options.out / PAGE_FILE}")
    if summary.failures:
        return 1
    return 0
