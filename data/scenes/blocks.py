"""A split by place: blocks of ground, each wholly for training or wholly for validation.

The blocks are those of one net over the whole Earth: bands of latitude, each cut into as many equal
parts as make them nearly square. So a tile's split follows from its place and the rule alone, and
all scenes of a place agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.hashing import hash_64
from data.prepare.place.grid import CELL, Grid
from data.prepare.place.projection import to_degrees
from data.tiles.longitudes import HALF_TURN, POLE, TURN
from data.tiles.splits import TRAIN, VALIDATION

HALF_MERIDIAN = 20_004.0  # km from pole to pole
MARGIN = 1  # cells around a tile that must be of its split too: resampling looks there
EDGE_POINTS = 9  # along each edge of a tile


@dataclass(frozen=True)
class SplitRule:
    """Which blocks are for validation.

    Attributes:
        block_km: side of a block.
        validation: share of the blocks, 0 to 1.
        seed: another one gives other blocks.
    """

    block_km: float
    validation: float
    seed: int

    def __str__(self) -> str:
        return f"validation {self.validation:g}, block_km {self.block_km:g}, seed {self.seed}"

    def splits_of(self, grids: Sequence[Grid]) -> list[str | None]:
        """The splits of tiles of one size in one CRS; None for one that lies on blocks of both."""
        if not grids:
            return []
        return [self._split_of(bounds) for bounds in _bounds_in_degrees(grids).tolist()]

    def _split_of(self, bounds: list[float]) -> str | None:
        """The split of all blocks within some bounds; None for blocks of both."""
        splits = {self._split_of_block(band, column) for band, column in self._blocks(bounds)}
        if len(splits) > 1:
            return None
        return splits.pop()

    @property
    def _bands(self) -> int:
        """How many bands of latitude there are."""
        return max(1, round(HALF_MERIDIAN / self.block_km))

    def _blocks(self, bounds: Sequence[float]) -> list[tuple[int, int]]:
        """Band and column of every block that bounds (west, south, east, north) touch."""
        west, south, east, north = bounds
        blocks = []
        for band in range(self._band_of(south), self._band_of(north) + 1):
            columns = self._columns(band)
            first = math.floor(west / TURN * columns)
            last = min(math.floor(east / TURN * columns), first + columns - 1)
            blocks += [(band, column % columns) for column in range(first, last + 1)]
        return blocks

    def _band_of(self, lat: float) -> int:
        band = int((lat + POLE) / HALF_TURN * self._bands)
        return min(max(band, 0), self._bands - 1)

    def _columns(self, band: int) -> int:
        """How many blocks a band has."""
        lat = (band + 0.5) / self._bands * HALF_TURN - POLE
        return max(1, round(2 * self._bands * math.cos(math.radians(lat))))

    def _split_of_block(self, band: int, column: int) -> str:
        if _draw(self.seed, self._bands, band, column) < self.validation:
            return VALIDATION
        return TRAIN


@lru_cache(maxsize=65536)
def _draw(seed: int, bands: int, band: int, column: int) -> float:
    """A number in [0, 1) of a block."""
    return hash_64(f"split {seed} {bands} {band} {column}") / 2**64


def _bounds_in_degrees(grids: Sequence[Grid]) -> np.ndarray:
    """West, south, east and north of tiles of one size and CRS with their margins: n 4.

    East may lie beyond 180.
    """
    side = (grids[0].cells + 2 * MARGIN) * CELL
    left = np.array([grid.x0 for grid in grids])[:, None] - MARGIN * CELL  # n 1
    top = np.array([grid.y0 for grid in grids])[:, None] + MARGIN * CELL  # n 1
    ramp = np.linspace(0, side, EDGE_POINTS)
    near = np.zeros(EDGE_POINTS)
    far = np.full(EDGE_POINTS, side)
    right = np.concatenate([ramp, far, ramp[::-1], near])  # clockwise
    down = np.concatenate([near, ramp, far, ramp[::-1]])
    lon, lat = to_degrees(grids[0].crs).transform(left + right, top - down)  # n p
    lon = np.unwrap(lon, period=TURN)
    bounds = np.stack([lon.min(1), lat.min(1), lon.max(1), lat.max(1)], axis=1)  # n 4
    holds_pole = np.abs(lon[:, -1] - lon[:, 0]) > HALF_TURN  # the edge goes round it
    bounds[holds_pole, 0] = 0.0
    bounds[holds_pole, 2] = TURN
    is_north = bounds[:, 3] > 0
    bounds[holds_pole & is_north, 3] = POLE
    bounds[holds_pole & ~is_north, 1] = -POLE
    return bounds
