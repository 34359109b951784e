"""Audit a dataset of shards: read and check every member, and write audit.html and audit.json.

    python launch/audit_data.py shards --out audit

Exit status: 0 when every member is whole, 1 when one is damaged (the audit is written all the
same), 2 when the input is wrong. What is merely worth a look does not change it.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.audit.record import Record
from data.audit.report import FILES, claim, write
from data.audit.run import audit, spread
from data.audit.sections import SHOWN
from data.audit.statistics import registry_lines
from data.audit.summary import summarise
from data.jobs.progress import Progress
from data.shards.dataset import ShardDataset
from launch.cli import run


def main() -> int:
    """Parse the command line, audit, and say what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", help="folder made by launch/build_shards.py")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help=f"where {' and '.join(FILES)} go"
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="read so many samples, evenly spread (default: all)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="processes; 0: in this one (default: one a core)",
    )
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="also print means and deviations in the form of data/tiles/modalities.py",
    )
    options = parser.parse_args()
    dataset = ShardDataset.open(options.shards)
    total = len(spread(len(dataset), options.samples))
    claim(options.out)
    progress = Progress(total, 0, "samples", lambda line: print(line, flush=True))

    def told(record: Record) -> None:
        notes = [f"{failure.shard}: {failure.reason}" for failure in record.failures]
        progress.step(record.key or f"sample {record.sample}", notes, urgent=bool(notes))

    tally, pixels = audit(dataset, options.samples, options.workers, told)
    summary = summarise(dataset, tally, pixels)
    write(options.out, dataset, summary)
    for verdict in summary["verdicts"]:
        print(
            f"{SHOWN[verdict['verdict']]}: {verdict['question']} {verdict['numbers']} (limit: {verdict['limit']})"
        )
    if options.statistics:
        print(registry_lines(pixels))
    print(f"audit: {options.out / FILES[1]}")
    return 1 if summary["failures"] else 0


if __name__ == "__main__":
    run(main)
