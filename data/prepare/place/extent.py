"""Images whose size on the ground is known and whose place is not: patches of labelled sets.

A patch lies on a tile as if both had one middle. Where the tile is smaller, whole pixels are cut
off, so that pixels of the tile's own size are never resampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.place.georeference import NOWHERE, Georeference
from data.prepare.place.grid import ALIGNED, CELL, Grid

# Patches of one place may differ by this in their size, as 60.8 m of photo and 6 pixels of 10 m do.
MOST_APART = 5.0  # metres
MOST_SHARE = 0.02


@dataclass(frozen=True)
class Extent:
    """An image on the ground, of which nobody says where."""

    name: str  # of the file, for errors
    shape: tuple[int, int]  # rows, columns
    gsd: float  # metres of ground along a pixel

    @property
    def height(self) -> float:
        """Metres from top to bottom."""
        return self.shape[0] * self.gsd

    @property
    def width(self) -> float:
        """Metres from left to right."""
        return self.shape[1] * self.gsd

    @property
    def cells(self) -> int:
        """Whole cells of 10 m along the shorter side."""
        return int((min(self.height, self.width) + ALIGNED * self.gsd) // CELL)

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.shape[0]} x {self.shape[1]} pixels of {self.gsd:g} m: "
            f"{self.height:g} x {self.width:g} m)"
        )

    def on(self, grid: Grid) -> Georeference:
        """Where the pixels lie if the image has its middle in that of a grid."""
        side = grid.cells * CELL
        left = grid.x0 - self._margin(self.width - side)
        top = grid.y0 + self._margin(self.height - side)
        return Georeference(Affine(self.gsd, 0, left, 0, -self.gsd, top), grid.crs)

    def _margin(self, excess: float) -> float:
        """Metres to cut off at the beginning of an axis that is longer than a grid's.

        Whole cells, so that patches of one place with other pixels lose the same; what is less than
        a cell in whole pixels.
        """
        step = self.gsd
        if excess >= CELL:
            step = CELL
        return math.floor(excess / 2 / step + ALIGNED) * step


def nowhere(cells: int, crs: CRS = NOWHERE) -> Grid:
    """The grid of a tile without a place: the origin is its middle."""
    half = cells * CELL / 2
    return Grid(crs, -half, half, cells)


def common_cells(extents: Sequence[Extent], key: str) -> int:
    """Cells along the tile of some patches of one place.

    Raises:
        InputError: they differ in their size on the ground, or hold not even one cell.
    """
    first = extents[0]
    for other in extents[1:]:
        sides = ((first.height, other.height), (first.width, other.width))
        apart = max(abs(one - another) for one, another in sides)
        if apart > min(MOST_APART, MOST_SHARE * max(first.height, first.width)):
            raise InputError(
                f"tile {key!r}: {first} and {other} do not cover the same ground; correct 'gsd', "
                "or cut the files to one size"
            )
    smallest = min(extents, key=_cells)
    if smallest.cells < 1:
        raise InputError(f"tile {key!r}: {smallest}: not even one cell of 10 m")
    return smallest.cells


def check_fit(extents: Sequence[Extent], grid: Grid, key: str) -> None:
    """Raise InputError unless patches cover just the ground of a grid."""
    if not extents:
        return
    cells = common_cells(extents, key)
    if cells != grid.cells:
        smallest = min(extents, key=_cells)
        raise InputError(
            f"tile {key!r}: {smallest} has {cells} x {cells} whole cells of 10 m, and the tile "
            f"{grid.cells} x {grid.cells}; correct 'gsd', or the place ('cells' may be left out)"
        )


def _cells(extent: Extent) -> int:
    return extent.cells
