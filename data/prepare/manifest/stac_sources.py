"""The items of a STAC search as sources of tiles: whose they are, and where they lie."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from data.prepare.contract.source import Reader
from data.prepare.place.grid import CELL, Grid
from data.prepare.place.projection import to_degrees
from data.tiles.longitudes import HALF_TURN, POLE, cut_at_180

EDGES = 20  # pieces of a tile's edge that are straight in degrees


@dataclass(frozen=True)
class ItemSource:
    """An item whose reader is made. The tiles that it touches share the reader."""

    reader: Reader
    modality: str
    shape: shapely.Geometry  # in lon/lat, cut at the 180th meridian
    licence: str
    attribution: str


def joined_rights(sources: Iterable[ItemSource]) -> tuple[str, str]:
    """Licence and attribution of several items; each is named once."""
    licences = []
    attributions = []
    for source in sources:
        if source.licence not in licences:
            licences.append(source.licence)
        if source.attribution not in attributions:
            attributions.append(source.attribution)
    return "; ".join(licences), "; ".join(attributions)


def record_keys(sources: Sequence[ItemSource]) -> dict:
    """The keys of a record that come from its items."""
    licence, attribution = joined_rights(sources)
    readers = [source.reader for source in sources]
    return {"sources": readers, "licence": licence, "attribution": attribution}


def outline(grid: Grid) -> shapely.Geometry:
    """A grid's square in lon/lat, cut at the 180th meridian where it crosses it."""
    square = shapely.segmentize(shapely.box(*grid.bounds), grid.cells * CELL / EDGES)

    def carry(points: np.ndarray) -> np.ndarray:
        return np.column_stack(to_degrees(grid.crs).transform(*points.T))

    turned = shapely.transform(square, carry)
    cut = cut_at_180(turned)
    if cut is not None:
        return cut
    _, south, _, north = turned.bounds  # it holds a pole
    if south > 0:
        return shapely.box(-HALF_TURN, south, HALF_TURN, POLE)
    return shapely.box(-HALF_TURN, -POLE, HALF_TURN, north)
