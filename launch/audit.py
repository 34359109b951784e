"""Audit a dataset of shards: read and check every member, and write audit.html and audit.json.

Exit status: 0 when nothing is wrong, 1 when something is (the audit is written all the same), 2
when the input is wrong. What is merely worth a look does not change it; with --strict a tile or a
source that is worth a look does.
"""

import argparse
from pathlib import Path

from data.audit.findings.records import SuspectFindings
from data.audit.findings.summary import summarise
from data.audit.measure.fault import WRONG
from data.audit.measure.record import Record
from data.audit.page.sections import VERDICT_WORDS
from data.audit.report import JSON_FILE, PAGE_FILE, make_folder, write
from data.audit.run import Spread, audit
from data.audit.statistics import write_statistics
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
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 also when a tile or a source is worth a look",
    )


def run(options: argparse.Namespace) -> int:
    """Audit the dataset, write both files and print the verdicts."""
    dataset = ShardDataset.open(options.shards)
    if options.write_statistics is not None:
        check_place("--write_statistics", options.write_statistics)
    place = place_of(options)
    samples = Spread.of(len(dataset), options.samples)
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
    for line in suspect_lines(summary.suspects):
        print(line)
    for answer in summary.verdicts:
        word = VERDICT_WORDS[answer.verdict]
        print(f"{word}: {answer.question} {answer.numbers} (limit: {answer.limit})")
    if options.write_statistics is not None:
        print("\n".join(write_statistics(options.write_statistics, pixels)))
    print(f"audit: {options.out / PAGE_FILE}")
    is_wrong = any(answer.verdict == WRONG for answer in summary.verdicts)
    is_doubtful = bool(summary.suspects.counts or summary.suspects.sources)
    if is_wrong or (options.strict and is_doubtful):
        return 1
    return 0


def suspect_lines(suspects: SuspectFindings) -> list[str]:
    """One line for each source with a fault, and for the worst tiles of each kind of fault."""
    lines = []
    for source in suspects.sources:
        word = VERDICT_WORDS[source.verdict]
        lines.append(f"{word}: {source.source}: {source.sensor}, {source.kind}: {source.reason}")
    for tile in suspects.tiles:
        word = VERDICT_WORDS[tile.verdict]
        lines.append(f"{word}: {tile.key}: {tile.sensor}, {tile.kind}: {tile.reason}")
    return lines
