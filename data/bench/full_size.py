"""Full-size samples for measuring, mosaicked from an archive, as shards and as source rasters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.bench.rasters import write_rasters, write_scenes
from data.bench.scene import load_scene
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.tiles.tile import Tile

SCENES = 2
PLACE = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_600_000.0)  # affine transform of every mosaic


class Mosaics(Sequence[Tile]):
    """Tiles with 65 Sentinel-2 and 13 Sentinel-1 acquisitions, made when they are asked for.

    Args:
        archive: Archive with the pixels.
        length: Number of tiles.
        cells: Side of a tile in 10 m cells.
    """

    def __init__(self, archive: Path, length: int, cells: int = 64) -> None:
        self.archive = archive
        self.length = length
        self.cells = cells

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tile:  # type: ignore[override]  # nobody asks for slices
        if not 0 <= index < self.length:
            raise IndexError(index)
        scene = load_scene(self.archive, seed=index, cells=self.cells)
        return Tile(
            f"mosaic-{index:04d}",
            self.cells,
            crs="EPSG:32631",
            transform=PLACE,
            lon=3.0,
            lat=50.5,
            arrays={
                "hr": scene.hr.transpose(2, 0, 1),
                "ms": scene.ms,
                "sar": scene.sar,
                "labels": scene.labels,
            },
            valid={
                "hr": np.ones((1, self.cells, self.cells), bool),
                "ms": scene.ms_valid,
                "sar": np.isfinite(scene.sar).all(1),
            },
            dates={"hr": ["2020-07-01"], "ms": _days(len(scene.ms)), "sar": _days(len(scene.sar))},
            source=f"mosaic of {self.archive.name}",
        )


def write_full_size(archive: Path, folder: Path, count: int) -> None:
    """Write ``count`` samples.

    ``folder/rasters`` has all, ``folder/scenes`` the first SCENES of them (half a gigabyte each)
    and, last, ``folder/shards`` all.
    """
    tiles = Mosaics(archive, count)
    for number, tile in enumerate(tiles):
        write_rasters(tile, folder / "rasters" / tile.key)
        if number < SCENES:
            write_scenes(tile, folder / "scenes" / tile.key)
    write_shards(tiles, folder / "shards", ShardOptions(samples_per_shard=16))


def _days(count: int) -> list[str]:
    """``count`` days of one year, evenly spread."""
    start = np.datetime64("2019-01-01")
    days = np.linspace(0, 364, count).round()
    return [str(start + np.timedelta64(int(day), "D")) for day in days]
