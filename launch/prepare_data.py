"""Real raster files -> zarr archive of co-registered tiles.

    python launch/prepare_data.py --manifest data/samples/manifest.jsonl --out archive
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the command works from any folder

from data.prepare.run import prepare  # noqa: E402
from launch.cli import run  # noqa: E402


def main() -> None:
    """Parse the command line and prepare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, help="JSON lines, one tile a line; paths are relative to it")
    parser.add_argument("--out", required=True, help="folder of the archive to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an archive that is there")
    options = parser.parse_args()
    report = prepare(options.manifest, options.out, options.overwrite, say=lambda line: print(line, flush=True))
    print(f"{options.out}: {len(report['tiles'])} tiles, {len(report['rejected'])} rejected; see report.json in it")


if __name__ == "__main__":
    run(main)
