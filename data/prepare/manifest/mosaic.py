"""The items of a STAC search as scenes: one for each zone, cut on the pixels of its items."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import shapely
from affine import Affine
from rasterio.coords import BoundingBox
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.source import Place, main_file
from data.prepare.manifest.entry import Entry, LeftOut
from data.prepare.manifest.opened import Opened, opened
from data.prepare.manifest.scene import BETWEEN, SceneKeys, splits_of
from data.prepare.manifest.stac_sources import ItemSource, joined_rights
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import ALIGNED, CELL, Grid, Lattice
from data.prepare.place.projection import from_degrees
from data.prepare.place.spot import Cut
from data.scenes.blocks import SplitRule
from data.scenes.windows import has_cells, windows_of

STRAIGHT = 0.1  # degrees: pieces of an outline that stay straight in a zone


@dataclass
class _Zone:
    """The items whose pixels lie on one lattice of cells."""

    lattice: Lattice
    members: list[int] = field(default_factory=list)  # numbers of items
    boxes: list[BoundingBox] = field(default_factory=list)

    def holds(self, lattice: Lattice) -> bool:
        """Whether another lattice has the same cells, to 0.05 of one."""
        if lattice.crs != self.lattice.crs:
            return False
        off = np.array([lattice.x - self.lattice.x, lattice.y - self.lattice.y]) / CELL
        return bool(np.abs(off - off.round()).max() <= ALIGNED)

    def over(self, grid: Grid) -> set[int]:
        """The members that have pixels on a grid of this lattice."""
        boxes = np.array(self.boxes)
        left, bottom, right, top = grid.bounds
        width = np.minimum(boxes[:, 2], right) - np.maximum(boxes[:, 0], left)
        height = np.minimum(boxes[:, 3], top) - np.maximum(boxes[:, 1], bottom)
        has_pixels = np.minimum(width, height) > CELL / 2
        return {self.members[i] for i in np.flatnonzero(has_pixels)}

    def place(self, modality: str) -> Place:
        """The smallest raster that holds all items."""
        boxes = np.array(self.boxes)
        left, bottom = boxes[:, :2].min(axis=0)
        right, top = boxes[:, 2:].max(axis=0)
        shape = (round((top - bottom) / CELL), round((right - left) / CELL))
        pixel = Affine(CELL, 0, float(left), 0, -CELL, float(top))
        return Place(modality, Georeference(pixel, self.lattice.crs), shape)


@dataclass(frozen=True)
class Mosaic:
    """A rule that cuts the pixels of many items into tiles.

    The first sensor whose pixels are cells of 10 m gives them. Its items in one zone are one scene,
    which has the smallest rectangle around all of them; a tile takes those that touch it, and every
    item of other sensors that does.
    """

    keys: SceneKeys
    items: tuple[ItemSource, ...]

    @property
    def split(self) -> SplitRule | None:
        """Which blocks are for validation."""
        return self.keys.split

    def tiles(self, whole: Entry) -> Iterator[Entry | LeftOut]:
        """See ``Rule``. An item that cannot be opened is a tile with a fault, beside the others."""
        headers = opened(item.reader for item in self.items)
        sources = [_checked(source, item) for source, item in zip(headers, self.items)]
        modality, zones = self._zones(sources)
        for number, source in enumerate(sources):
            if source.fault:
                yield replace(whole, key=f"{whole.key}-item-{number}", fault=source.fault)
        for zone in zones:
            yield from self._tiles_of_zone(whole, zone, modality)

    def _zones(self, sources: Sequence[Opened]) -> tuple[str, list[_Zone]]:
        """The sensor that is cut, and its items by the lattice of their pixels.

        Raises:
            InputError: no item has pixels that are cells of 10 m.
        """
        zones: list[_Zone] = []
        modality = ""
        for number, source in enumerate(sources):
            place = source.place
            if place is None or not has_cells(place, self.keys.cells):
                continue
            modality = modality or self.items[number].modality
            if self.items[number].modality != modality:
                continue
            box = place.georeference.bounds(place.shape)
            lattice = Lattice(place.georeference.crs, box.left, box.top)
            zone = next((zone for zone in zones if zone.holds(lattice)), None)
            if zone is None:
                zone = _Zone(lattice)
                zones.append(zone)
            zone.members.append(number)
            zone.boxes.append(box)
        if not zones:
            faults = [source.fault for source in sources if source.fault]
            if faults:
                raise InputError(f"{len(faults)} items cannot be used; the first one: {faults[0]}")
            raise InputError(
                "no item of the search has pixels of 10 m on the ground, which would give the "
                "tiles; give a list of tiles (--tiles)"
            )
        return modality, zones

    def _tiles_of_zone(self, whole: Entry, zone: _Zone, modality: str) -> Iterator[Entry | LeftOut]:
        """The tiles of a zone that an item of the zone touches."""
        stride = self.keys.stride or self.keys.cells
        name = f"{whole.key}-{zone.lattice.crs.to_epsg() or zone.members[0]}"
        if zone.lattice.x % CELL or zone.lattice.y % CELL:
            name += f"-{zone.members[0]}"  # another zone of this CRS may lie on the multiples
        windows = []
        members = []  # of each window: its items of the zone, by number
        for window in windows_of(zone.place(modality), cells=self.keys.cells, stride=stride):
            over = zone.over(window.grid)
            if over:
                windows.append(window)
                members.append(over)
        grids = [window.grid for window in windows]
        splits = splits_of(grids, self.split, whole.split)
        touched = self._touched(grids)
        for window, own, split, numbers in zip(windows, members, splits, touched):
            if own.isdisjoint(numbers):
                continue
            if split is None:
                yield LeftOut(BETWEEN)
                continue
            items = []
            for number in numbers:
                if number in own or self.items[number].modality != modality:
                    items.append(self.items[number])
            licence, attribution = joined_rights(items)
            yield replace(
                whole,
                key=f"{name}-{window.name}",
                readers=tuple(item.reader for item in items),
                spot=Cut(window.grid),
                split=split,
                licence=licence,
                attribution=attribution,
            )

    def _touched(self, grids: Sequence[Grid]) -> list[list[int]]:
        """For each of some tiles in one CRS the numbers of the items that touch it, ascending."""
        touched: list[list[int]] = [[] for _ in grids]
        if not grids:
            return touched
        tree = shapely.STRtree([_in_crs(item.shape, grids[0].crs) for item in self.items])
        squares = shapely.box(*np.array([grid.bounds for grid in grids]).T)
        for tile, number in tree.query(squares, predicate="intersects").T.tolist():
            touched[tile].append(number)
        return [sorted(numbers) for numbers in touched]


def _checked(source: Opened, item: ItemSource) -> Opened:
    """The headers of an item; a fault if its outline lies beside its pixels.

    No tile would be made of such an item, and nobody would be told.
    """
    place = source.place
    if place is None or not place.georeference.crs.is_projected:
        return source
    pixels = shapely.box(*place.georeference.bounds(place.shape))
    if _in_crs(item.shape, place.georeference.crs).intersects(pixels):
        return source
    bounds = [round(number, 4) for number in item.shape.bounds]
    return Opened(
        None,
        f"{main_file(item.reader)}: the geometry of its item, {bounds}, touches none of its pixels;"
        " are longitude and latitude exchanged?",
    )


def _in_crs(shape: shapely.Geometry, crs: CRS) -> shapely.Geometry:
    """A shape in lon/lat in a zone; an empty one if it lies where the zone has no coordinates."""
    fine = shapely.segmentize(shape, STRAIGHT)
    carry = from_degrees(crs)
    there = shapely.transform(fine, lambda points: np.column_stack(carry.transform(*points.T)))
    if not np.isfinite(shapely.get_coordinates(there)).all():
        return shapely.Polygon()
    return there
