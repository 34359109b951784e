"""Regions of the geo-context prototypes: an equal-area grid of 65,536 m cells.

A cell has 4,294.967 km2, the paper's region. The grid lies on EPSG:6933 (EASE-Grid 2.0:
cylindrical, equal-area, true scale at 30 degrees). Cells are squares of the projection, so all have
one area on the ground though not one shape. Cell id = row x COLUMNS + column, counted from the
north-west corner of the world. Only cells that hold data get an index.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rasterio.warp import transform

from data.errors import InputError
from data.tiles.longitudes import FARTHEST, wrapped

CELL = 65_536.0  # metres
CRS = "EPSG:6933"
WEST = -17_367_530.45  # corner of the projected world, metres
NORTH = 7_342_230.14
COLUMNS = 531  # the last column and row reach over the edge
ROWS = 225
NO_REGION = -1  # index of a sample whose place nobody knows
EARTH_KM = 6371.0088  # mean radius


def cell_of(lon: float, lat: float) -> int:
    """Grid cell that holds a point given in degrees. The longitude may have any winding.

    Raises:
        InputError: the point lies outside [-540, 540] x [-90, 90].
    """
    if not (abs(lon) <= FARTHEST and -90 <= lat <= 90):
        raise InputError(
            f"region of lon {lon}, lat {lat}: expected a longitude in degrees, and a latitude "
            "within [-90, 90]"
        )
    (x,), (y,) = transform("EPSG:4326", CRS, [wrapped(lon)], [lat])
    column = min(max(int((x - WEST) // CELL), 0), COLUMNS - 1)
    row = min(max(int((NORTH - y) // CELL), 0), ROWS - 1)
    return row * COLUMNS + column


def cell_centre(cell: int) -> tuple[float, float]:
    """Lon and lat of a cell's centre, in degrees.

    Cells that reach over the edge of the world give a point on the edge.
    """
    row, column = divmod(cell, COLUMNS)
    x = min(WEST + (column + 0.5) * CELL, -WEST)
    y = max(NORTH - (row + 0.5) * CELL, -NORTH)
    (lon,), (lat,) = transform(CRS, "EPSG:4326", [x], [y])
    return lon, lat


@dataclass(frozen=True)
class RegionTable:
    """Occupied grid cells, ascending. A cell's position is its region index.

    Raises:
        InputError: the cells do not ascend.
    """

    cells: tuple[int, ...]

    def __post_init__(self) -> None:
        if list(self.cells) != sorted(set(self.cells)):
            raise InputError(
                "region table: cells must ascend without repeats; make the shards again"
            )

    def __len__(self) -> int:
        return len(self.cells)

    @classmethod
    def from_points(cls, points: Iterable[tuple[float, float]]) -> "RegionTable":
        """Table of the cells that hold the given points (lon, lat)."""
        cells = {cell_of(lon, lat) for lon, lat in points}
        return cls(tuple(sorted(cells)))

    def lookup(self, lon: float, lat: float) -> int | None:
        """Region index of a point; None where the table has no such cell."""
        cell = cell_of(lon, lat)
        position = int(np.searchsorted(self.cells, cell))
        if position < len(self.cells) and self.cells[position] == cell:
            return position
        return None

    def nearest(self, lon: float, lat: float, *, max_km: float | None = None) -> int | None:
        """Region index of the occupied cell whose centre is nearest on the sphere.

        The cell that holds the point comes first.

        Args:
            lon: degrees.
            lat: degrees.
            max_km: how far the centre may be; None: any distance.

        Returns:
            The index; None when the table is empty or the centre is too far.
        """
        own = self.lookup(lon, lat)
        if own is not None or not self.cells:
            return own
        distances = []
        for cell in self.cells:
            distances.append(great_circle_km((lon, lat), cell_centre(cell)))
        best = int(np.argmin(distances))
        if max_km is not None and distances[best] > max_km:
            return None
        return best

    def to_json(self) -> dict:
        """Plain data for the dataset manifest."""
        return {"crs": CRS, "cell_metres": CELL, "columns": COLUMNS, "cells": list(self.cells)}

    @classmethod
    def from_json(cls, data: dict) -> "RegionTable":
        """The inverse of ``to_json``.

        Raises:
            InputError: the table is of another grid.
        """
        grid = (data.get("crs"), data.get("cell_metres"), data.get("columns"))
        expected = (CRS, CELL, COLUMNS)
        if grid != expected:
            raise InputError(
                f"region table: expected grid {expected}, found {grid}; make the shards again"
            )
        return cls(tuple(data["cells"]))


def great_circle_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Distance of two points (lon, lat in degrees) on the sphere, by the haversine formula."""
    lon_a, lat_a, lon_b, lat_b = np.radians([*a, *b])
    chord = (
        np.sin((lat_b - lat_a) / 2) ** 2
        + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    )
    return float(2 * EARTH_KM * np.arcsin(np.sqrt(min(chord, 1.0))))
