"""Real raster files -> zarr archive of co-registered tiles.

    python launch/prepare_data.py --manifest data/samples/manifest.jsonl --out archive

A run that was stopped or killed goes on when the same command is started again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.prepare.run import prepare
from launch.stoppable import run_stoppable


def main() -> None:
    """Parse the command line and prepare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest", required=True, help="which sources make which tile; see docs/manifest.md"
    )
    parser.add_argument(
        "--tiles", help="list of the tiles to cut, for a manifest that is a STAC item collection"
    )
    parser.add_argument("--out", required=True, help="folder of the archive to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an archive that is there")
    parser.add_argument(
        "--workers", type=int, help="processes (default: one a core; 0: work in this one)"
    )
    parser.add_argument(
        "--max_rejected", type=int, help="stop when more tiles are rejected (default: no limit)"
    )
    parser.add_argument(
        "--retry_rejected",
        action="store_true",
        help="try again what an unfinished run has rejected",
    )
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an unfinished run has made"
    )
    options = vars(parser.parse_args())
    report = prepare(**options, say=lambda line: print(line, flush=True))
    print(
        f"{options['out']}: {len(report['tiles'])} tiles, {len(report['rejected'])} rejected; see report.json in it"
    )


if __name__ == "__main__":
    run_stoppable(main)
