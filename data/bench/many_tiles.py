"""What a preparation of very many tiles takes: ``python -m data.bench.many_tiles FOLDER``.

The tiles are as small as they can be (one cell of 10 m, one image), so what is measured is the
machinery around them: manifest, tasks, journal, files.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from data.prepare.run import prepare

PIXELS = 32  # a side: one cell
PIXEL_METRES = 0.3125


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where sources and archive go")
    parser.add_argument("--tiles", type=int, default=10_000, metavar="N")
    parser.add_argument("--workers", type=int, metavar="N", help="default: one a core")
    options = parser.parse_args()
    figures = measure(options.folder, options.tiles, workers=options.workers)
    print(json.dumps(figures, indent=1))


def measure(
    folder: Path, tiles: int, *, workers: int | None, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Prepare that many tiles; the figures, sizes in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(folder, tiles)
    before = _memory()
    start = time.monotonic()
    prepare(manifest, folder / "archive", workers=workers, overwrite=True, say=say)
    seconds = time.monotonic() - start
    files = 0
    folders = 0
    for _, inner_folders, inner_files in os.walk(folder / "archive"):
        folders += len(inner_folders)
        files += len(inner_files)
    return {
        "tiles": tiles,
        "seconds": round(seconds, 1),
        "tiles_a_second": round(tiles / seconds, 1),
        "memory_of_the_command_a_tile": round((_memory() - before) / tiles),
        "manifest_a_tile": round(manifest.stat().st_size / tiles),
        "report_a_tile": round((folder / "archive/report.json").stat().st_size / tiles),
        "files_a_tile": round(files / tiles, 2),
        "folders_a_tile": round(folders / tiles, 2),
    }


def write_manifest(folder: Path, tiles: int) -> Path:
    """A manifest whose tiles all show one small image."""
    profile = {
        "driver": "GTiff",
        "width": PIXELS,
        "height": PIXELS,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32632",
        "transform": from_origin(500_000, 5_700_000, PIXEL_METRES, PIXEL_METRES),
    }
    with rasterio.open(folder / "image.tif", "w", **profile) as image:
        image.write(np.full((3, PIXELS, PIXELS), 100, np.uint8))
    source = {
        "reader": "geotiff_image",
        "path": "image.tif",
        "modality": "hr",
        "bands": ["R", "G", "B"],
        "date": "2020-05-01",
    }
    manifest = folder / "manifest.jsonl"
    with open(manifest, "w") as file:
        for number in range(tiles):
            entry = {
                "key": f"tile-{number:08d}",
                "licence": "CC0-1.0",
                "attribution": "nobody",
                "sources": [source],
            }
            file.write(json.dumps(entry) + "\n")
    return manifest


def _memory() -> int:
    """The most memory that this process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
