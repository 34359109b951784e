"""Zarr archive -> training shards: plain tars, sidecar indexes and a manifest.

    python launch/build_shards.py --archive archive --out shards

A run that was stopped or killed goes on when the same command is started again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # so that the command works from any folder

from data.shards.pack import pack
from data.shards.writer import ShardOptions
from launch.stoppable import run_stoppable


def main() -> None:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", required=True, help="folder made by launch/prepare_data.py")
    parser.add_argument("--out", required=True, help="folder of the shards to make")
    parser.add_argument("--samples_per_shard", type=int, default=256, help="tiles in one tar")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order in which tiles are packed"
    )
    parser.add_argument(
        "--hr_codec", choices=("jpeg", "png"), default="jpeg", help="png keeps every value"
    )
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG images")
    parser.add_argument(
        "--overwrite", action="store_true", help="remove a dataset that is there, first"
    )
    parser.add_argument(
        "--workers", type=int, help="processes (default: one a core; 0: work in this one)"
    )
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an unfinished run has written"
    )
    options = parser.parse_args()
    chosen = ShardOptions(
        options.samples_per_shard, options.seed, options.hr_codec, options.quality
    )
    manifest = pack(
        options.archive,
        options.out,
        chosen,
        options.overwrite,
        workers=options.workers,
        restart=options.restart,
        say=lambda line: print(line, flush=True),
    )
    size = sum(shard["size"] for shard in manifest["shards"])
    print(
        f"{options.out}: {manifest['samples']} samples in {len(manifest['shards'])} shards, {size / 1e6:.1f} MB, "
        f"{len(manifest['regions']['cells'])} regions, fingerprint {manifest['fingerprint']}"
    )


if __name__ == "__main__":
    run_stoppable(main)
