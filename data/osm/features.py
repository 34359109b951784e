"""Shapes with OpenStreetMap tags -> label raster."""

import functools
from dataclasses import dataclass, fields

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform, transform_bounds

from data.osm.tags import MAX_WIDTH, area_class, level, telling, way_class
from data.tiles.classes import draw_rank
from data.tiles.tile import UNLABELLED

LINE, RING, POLYGON, LINES, POLYGONS, COLLECTION = 1, 2, 3, 5, 6, 7  # shapely.get_type_id
DEGREE = 111_195.0  # metres of latitude on a sphere of 6371 km
MARGIN = MAX_WIDTH / 2 + 1  # metres around a raster from which a line can reach into it

Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Features:
    """n shapes to be drawn, one row each."""

    geometry: np.ndarray  # (n,) shapely lines and polygons, also of several parts
    index: np.ndarray  # (n,) uint8 class
    width: np.ndarray  # (n,) float32 metres of a line, 0 for an area
    level: np.ndarray  # (n,) int8, see tags.level
    mended: (
        np.ndarray
    )  # (n,) bool: the shape was invalid (it crossed itself) and has been made valid
    size: (
        np.ndarray
    )  # (n,) float64 square metres of the whole area, also after it was clipped; 0 for a line
    skipped: int = 0  # shapes beyond mending

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: np.ndarray, geometry: np.ndarray, size: np.ndarray) -> "Features":
        """The chosen rows, with another ``geometry`` of these and ``size`` of all."""
        return Features(
            geometry,
            self.index[rows],
            self.width[rows],
            self.level[rows],
            self.mended[rows],
            size[rows],
            self.skipped,
        )


def join(parts: list[Features]) -> Features:
    """All rows of all parts."""
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Features)
        if field.name != "skipped"
    }
    return Features(**columns, skipped=sum(part.skipped for part in parts))


def features_of(
    geometries: np.ndarray, tags: list[dict[str, str]], default: dict[str, str] | None = None
) -> Features:
    """Shapes (n,) with their tags -> what of them is drawn. ``default`` tags stand in where a shape
    has no telling one.

    Points have no area and are left out. A closed line is drawn along the line, as the area inside
    it, or both, as its tags say. Invalid areas are mended; what has no area even then is counted in
    ``skipped``."""
    parts, owners = _without_collections(geometries)
    kinds = shapely.get_type_id(parts)
    rings = shapely.is_closed(parts) & (kinds == LINE) & (shapely.get_num_coordinates(parts) > 3)
    tags = [frozenset((own if telling(own) else default or {}).items()) for own in tags]
    found = [
        (row, *meaning)
        for row, (owner, kind, ring) in enumerate(zip(owners, kinds.tolist(), rings.tolist()))
        for meaning in _meaning(tags[owner], kind, ring)
    ]
    columns = [
        np.array([entry[column] for entry in found], kind)
        for column, kind in enumerate((np.intp, np.uint8, np.float32, np.int8))
    ]
    row, index, width, height = columns
    geometry, area = parts[row], width == 0
    ring = area & rings[row]
    geometry[ring] = shapely.polygons(_closed(geometry[ring]))
    broken = area & ~shapely.is_valid(geometry)
    geometry[broken] = [_mended(shape) for shape in geometry[broken]]
    measure = np.where(area, shapely.area(geometry), shapely.length(geometry))
    kept = np.isfinite(measure) & (measure > 0)
    return Features(
        geometry[kept],
        index[kept],
        width[kept],
        height[kept],
        broken[kept],
        np.where(area, measure, 0)[kept],
        int((~kept).sum()),
    )


def boxes(crs: CRS, target: CRS, bounds: Box) -> list[Box]:
    """What to read in ``crs`` for a raster with ``bounds`` in ``target`` (metres), its margin
    included: one box, or two where the raster lies across the 180th meridian."""
    left, bottom, right, top = bounds
    wide = (left - MARGIN, bottom - MARGIN, right + MARGIN, top + MARGIN)
    left, bottom, right, top = transform_bounds(target, crs, *wide, densify_pts=21)
    if crs.is_geographic and left > right:
        return [(left, bottom, 180.0, top), (-180.0, bottom, right, top)]
    return [(left, bottom, right, top)]


def place(features: Features, crs: CRS, box: Box, target: CRS) -> Features:
    """Features clipped to ``box`` in their ``crs``, then carried to ``target``; sizes become square
    metres.

    Only the ends of an edge are carried. Clipping first keeps edges short: one of 1 km in degrees
    at latitude 45 is off by 2 cm in its middle."""
    clipped = shapely.clip_by_rect(features.geometry, *box)
    rows = np.flatnonzero(~shapely.is_empty(clipped))
    moved = shapely.transform(
        clipped[rows], lambda xy: np.column_stack(transform(crs, target, *xy.T))
    )
    if crs.is_projected:
        unit = crs.linear_units_factor[1] ** 2
    else:
        unit = DEGREE**2 * np.cos(np.radians((box[1] + box[3]) / 2))
    return features.take(rows, moved, features.size * unit)


def burn(features: Features, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Features in the CRS of ``transform`` (metres) -> uint8 class raster of ``shape``, 255 where
    none lies.

    A pixel belongs to what holds its centre. A line is a band of its width with round ends, and at
    least one pixel wide: a path must not fall into dots. Drawing order: by layer (classes.LAYERS),
    then by level (bridges); areas before lines; of areas the larger first, so that none is hidden
    by the one around it; of lines the narrower first, because a footpath ends at the road that it
    meets; then by class. The order in the file plays no part."""
    if not len(features):
        return np.full(shape, UNLABELLED, np.uint8)
    lines = features.width > 0
    geometry = features.geometry.copy()
    geometry[lines] = shapely.buffer(
        geometry[lines], np.maximum(features.width[lines], transform.a) / 2
    )
    rank = [draw_rank(index) for index in features.index]
    extent = np.where(lines, features.width, -features.size)
    order = np.lexsort(
        (features.index, extent, lines, features.level, rank)
    )  # the last key counts most
    shapes = [(geometry[row], int(features.index[row])) for row in order]
    return rasterize(shapes, out_shape=shape, transform=transform, fill=UNLABELLED, dtype="uint8")


@functools.lru_cache(maxsize=100_000)
def _meaning(tags: frozenset, kind: int, ring: bool) -> list[tuple[int, float, int]]:
    """(class index, width or 0, level) of everything that a shape of this kind is drawn as."""
    tags, found = dict(tags), []
    if kind in (POLYGON, POLYGONS) or ring:
        index = area_class(tags, closed_line=ring)
        found += [] if index is None else [(index, 0.0, level(tags))]
    if kind in (LINE, RING, LINES):
        way = way_class(tags)
        found += [] if way is None else [(*way, level(tags))]
    return found


def _closed(lines: np.ndarray) -> np.ndarray:
    """Closed lines as rings."""
    points, owners = shapely.get_coordinates(lines, return_index=True)
    return shapely.linearrings(points, indices=owners) if len(lines) else lines


def _mended(area: shapely.Geometry) -> shapely.Geometry | None:
    """The valid area of an invalid one; None if there is none."""
    if not np.isfinite(shapely.get_coordinates(area)).all():
        return None
    try:
        valid = shapely.make_valid(area)
    except shapely.GEOSException:  # beyond it: one shape must not end a run over millions
        return None
    parts = shapely.get_parts(shapely.get_parts(valid))
    parts = parts[shapely.get_type_id(parts) == POLYGON]
    return shapely.multipolygons(parts) if len(parts) else None


def _without_collections(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapes with every geometry collection replaced by its members, and for each the position of
    its owner."""
    owners = np.arange(len(geometries))
    while (shapely.get_type_id(geometries) == COLLECTION).any():
        bundled = shapely.get_type_id(geometries) == COLLECTION
        members, of = shapely.get_parts(geometries[bundled], return_index=True)
        owners = np.concatenate([owners[~bundled], owners[bundled][of]])
        geometries = np.concatenate([geometries[~bundled], members])
    return geometries, owners
