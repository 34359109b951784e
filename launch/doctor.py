"""Say what is active on this machine and why; with a configuration, also what it would use and what
it lacks.

    python launch/doctor.py
    python launch/doctor.py --deepspeed_config ds_configs/one_gpu.json --set skysense.data.shards=shards
    python launch/doctor.py --deepspeed_config ds_configs/paper_128gpu.json --ranks 128 --json

Exit code 0 if the configuration's needs are met, 2 with one line otherwise.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from engine.doctor.report import doctor_command
from launch.cli import run


def main() -> int:
    """Parse the command line and report; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--deepspeed_config", type=Path, metavar="FILE", help="configuration of a run"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="PLACE=VALUE", help="override one value of it"
    )
    parser.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="ranks of the run (default: the GPUs here, or without any the configuration's ep_size)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of lines"
    )
    given = parser.parse_args()
    return doctor_command(given.deepspeed_config, given.set, given.ranks, given.json)


if __name__ == "__main__":
    run(main)
