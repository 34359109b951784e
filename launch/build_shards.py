"""Zarr archive -> training shards: plain tars, sidecar indexes and a manifest.

    python launch/build_shards.py --archive archive --out shards
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the command works from any folder

from data.archive import read_tile, tile_keys  # noqa: E402
from data.shard_writer import ShardOptions, write_shards  # noqa: E402
from data.tile import Tile  # noqa: E402
from launch.cli import run  # noqa: E402


class ArchiveTiles(Sequence):
    """The tiles of an archive in key order, read when asked for; says how far it is."""

    def __init__(self, archive: str):
        self.archive, self.keys, self.read = archive, tile_keys(archive), 0

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Tile:
        self.read += 1
        if self.read % max(1, len(self) // 20) == 0 or self.read == len(self):
            print(f"[{self.read}/{len(self)}] {self.keys[index]}", flush=True)
        return read_tile(self.archive, self.keys[index])


def main() -> None:
    """Parse the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", required=True, help="folder made by launch/prepare_data.py")
    parser.add_argument("--out", required=True, help="folder of the shards to make")
    parser.add_argument("--samples_per_shard", type=int, default=256, help="tiles in one tar")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which tiles are packed")
    parser.add_argument("--hr_codec", choices=("jpeg", "png"), default="jpeg", help="png keeps every value")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG images")
    parser.add_argument("--overwrite", action="store_true", help="remove shards that are there, first")
    options = parser.parse_args()
    chosen = ShardOptions(options.samples_per_shard, options.seed, options.hr_codec, options.quality)
    manifest = write_shards(ArchiveTiles(options.archive), options.out, chosen, options.overwrite)
    size = sum(shard["size"] for shard in manifest["shards"])
    print(f"{options.out}: {manifest['samples']} samples in {len(manifest['shards'])} shards, {size / 1e6:.1f} MB, "
          f"{len(manifest['regions']['cells'])} regions, fingerprint {manifest['fingerprint']}")


if __name__ == "__main__":
    run(main)
