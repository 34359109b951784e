"""Shapes with OpenStreetMap tags -> label raster."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform, transform_bounds

from data.osm.tags import MAX_WIDTH, area_class, is_telling, level, way_class
from data.tiles.classes import draw_rank
from data.tiles.longitudes import cut_at_180, runs_over
from data.tiles.tile import UNLABELLED

# Values of shapely.get_type_id.
LINE = 1
RING = 2
POLYGON = 3
LINES = 5
POLYGONS = 6
COLLECTION = 7

DEGREE = 111_195.0  # metres of latitude on a sphere of 6371 km
MARGIN = MAX_WIDTH / 2 + 1  # metres around a raster from which a line can reach into it
EDGE_POINTS = 21  # along each edge of a box that is bent into another CRS
MIN_RING_POINTS = 4  # a closed line of fewer has no area

Tags = dict[str, str]
Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Features:
    """n shapes to be drawn, one row each."""

    geometry: np.ndarray  # (n,) shapely lines and polygons, also of several parts
    index: np.ndarray  # (n,) uint8 class
    width: np.ndarray  # (n,) float32 metres of a line, 0 for an area
    level: np.ndarray  # (n,) int8, see tags.level
    mended: np.ndarray  # (n,) bool: the shape was invalid (it crossed itself) and was made valid
    size: np.ndarray  # (n,) float64 square metres of the area before it was clipped, 0 for a line
    skipped: int = 0  # shapes beyond mending
    classless: int = 0  # shapes that nothing is drawn of: no tag names a visible class

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: np.ndarray) -> "Features":
        """The chosen rows."""
        columns = {}
        for name in COLUMNS:
            columns[name] = getattr(self, name)[rows]
        return Features(**columns, skipped=self.skipped, classless=self.classless)


COLUMNS = ("geometry", "index", "width", "level", "mended", "size")  # the arrays of Features


@dataclass(frozen=True)
class _Meaning:
    """What a shape is drawn as."""

    index: int  # class
    width: float  # metres of a line, 0 for an area
    level: int


def join(parts: Sequence[Features]) -> Features:
    """All rows of all parts."""
    columns = {}
    for name in COLUMNS:
        columns[name] = np.concatenate([getattr(part, name) for part in parts])
    return Features(
        **columns,
        skipped=sum(part.skipped for part in parts),
        classless=sum(part.classless for part in parts),
    )


def features_of(
    geometries: np.ndarray, tags: Sequence[Tags], default_tags: Tags | None = None
) -> Features:
    """What is drawn of shapes with tags.

    Points have no area and are left out. A closed line is drawn along the line, as the area inside
    it, or both, as its tags say. Invalid areas are mended; what has no area even then is counted in
    ``skipped``, and what no tag gives a class in ``classless``.

    Args:
        geometries: (n,) shapely shapes.
        tags: of each shape.
        default_tags: stand in for shapes without a telling tag.
    """
    parts, owners = _without_collections(geometries)
    kinds = shapely.get_type_id(parts)
    is_long = shapely.get_num_coordinates(parts) >= MIN_RING_POINTS
    is_ring = shapely.is_closed(parts) & (kinds == LINE) & is_long
    tag_sets = _tag_sets(tags, default_tags)
    rows = []
    indices = []
    widths = []
    levels = []
    for row, (owner, kind, ring) in enumerate(zip(owners, kinds.tolist(), is_ring.tolist())):
        for meaning in _meanings(tag_sets[owner], kind, ring):
            rows.append(row)
            indices.append(meaning.index)
            widths.append(meaning.width)
            levels.append(meaning.level)
    row_of = np.array(rows, np.intp)
    features = Features(
        geometry=parts[row_of],
        index=np.array(indices, np.uint8),
        width=np.array(widths, np.float32),
        level=np.array(levels, np.int8),
        mended=np.zeros(len(rows), bool),
        size=np.zeros(len(rows)),
        classless=len(geometries) - len(np.unique(owners[row_of])),
    )
    return _sound(features, is_ring[row_of])


def within_a_turn(features: Features, crs: CRS) -> Features:
    """Features whose longitudes lie within [-180, 180], cut where they cross the 180th meridian.

    A ring that jumps across it would cover the world the other way round.
    """
    if not crs.is_geographic:
        return features
    geometry = features.geometry.copy()
    size = features.size.copy()
    for row in np.flatnonzero(runs_over(geometry)):
        cut = cut_at_180(geometry[row])
        if cut is not None:  # else it goes round a pole, and is drawn as it is written
            geometry[row] = cut
            size[row] = min(size[row], cut.area)  # lines have no size
    return replace(features, geometry=geometry, size=size)


def _tag_sets(tags: Sequence[Tags], default_tags: Tags | None) -> list[frozenset]:
    """The tags of each shape in a form that can be a key; the default where none tells."""
    default: frozenset = frozenset()
    if default_tags is not None:
        default = frozenset(default_tags.items())
    sets = []
    for own in tags:
        if is_telling(own):
            sets.append(frozenset(own.items()))
        else:
            sets.append(default)
    return sets


def _sound(features: Features, is_ring: np.ndarray) -> Features:
    """Make rings areas, mend areas, measure them, and leave out what cannot be drawn.

    Args:
        features: with shapes as they were read.
        is_ring: (n,) bool, the shape is a closed line.
    """
    geometry = features.geometry
    is_area = features.width == 0
    ring = is_area & is_ring
    geometry[ring] = shapely.polygons(_closed(geometry[ring]))
    broken = is_area & ~shapely.is_valid(geometry)
    geometry[broken] = [_mended(shape) for shape in geometry[broken]]
    measure = np.where(is_area, shapely.area(geometry), shapely.length(geometry))
    sound = np.isfinite(measure) & (measure > 0)
    measured = replace(
        features, mended=broken, size=np.where(is_area, measure, 0), skipped=int((~sound).sum())
    )
    return measured.take(sound)


def boxes(crs: CRS, bounds: Box, *, target: CRS) -> list[Box]:
    """What to read for a raster, its margin included.

    Args:
        crs: of the shapes, and of the boxes.
        bounds: of the raster, in ``target``.
        target: CRS of the raster, in metres.

    Returns:
        One box, or two where the raster lies across the 180th meridian.
    """
    left, bottom, right, top = bounds
    wide = (left - MARGIN, bottom - MARGIN, right + MARGIN, top + MARGIN)
    left, bottom, right, top = transform_bounds(target, crs, *wide, densify_pts=EDGE_POINTS)
    if crs.is_geographic and left > right:
        return [(left, bottom, 180.0, top), (-180.0, bottom, right, top)]
    return [(left, bottom, right, top)]


def place(features: Features, crs: CRS, box: Box, *, target: CRS) -> Features:
    """Clip features and carry them into another CRS; sizes become square metres.

    Only the ends of an edge are carried. Clipping first keeps edges short: one of 1 km in degrees
    at latitude 45 is off by 2 cm in its middle.

    Args:
        features: in ``crs``.
        crs: their CRS.
        box: what to clip to, in ``crs``.
        target: CRS of the result.
    """
    clipped = shapely.clip_by_rect(features.geometry, *box)
    rows = np.flatnonzero(~shapely.is_empty(clipped))

    def carry(points: np.ndarray) -> np.ndarray:
        return np.column_stack(transform(crs, target, *points.T))

    if crs.is_projected:
        unit = crs.linear_units_factor[1] ** 2
    else:
        unit = DEGREE**2 * np.cos(np.radians((box[1] + box[3]) / 2))
    moved = shapely.transform(clipped[rows], carry)
    return replace(features.take(rows), geometry=moved, size=(features.size * unit)[rows])


def burn(features: Features, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Draw features as a raster of classes.

    A pixel belongs to what holds its centre. A line is a band of its width with round ends, and at
    least one pixel wide: a path must not fall into dots.

    Drawing order: by layer (``classes.LAYERS``), then by level (bridges); areas before lines; of
    areas the larger first, so that none is hidden by the one around it; of lines the narrower
    first, because a footpath ends at the road that it meets; then by class. The order in the file
    plays no part.

    Args:
        features: in the CRS of ``transform``, in metres.
        transform: affine of the raster.
        shape: rows and columns of the raster.

    Returns:
        Class indices, uint8 of ``shape``, 255 where no feature lies.
    """
    if not len(features):
        return np.full(shape, UNLABELLED, np.uint8)
    is_line = features.width > 0
    geometry = features.geometry.copy()
    radius = np.maximum(features.width[is_line], transform.a) / 2
    geometry[is_line] = shapely.buffer(geometry[is_line], radius)
    layer = np.array([draw_rank(index) for index in features.index])
    extent = np.where(is_line, features.width, -features.size)
    # The last key counts most.
    order = np.lexsort((features.index, extent, is_line, features.level, layer))
    shapes = [(geometry[row], int(features.index[row])) for row in order]
    return rasterize(shapes, out_shape=shape, transform=transform, fill=UNLABELLED, dtype="uint8")


@functools.lru_cache(maxsize=100_000)
def _meanings(tag_set: frozenset, kind: int, is_ring: bool) -> list[_Meaning]:
    """Everything that a shape of this kind is drawn as."""
    tags = dict(tag_set)
    meanings = []
    if kind in (POLYGON, POLYGONS) or is_ring:
        index = area_class(tags, closed_line=is_ring)
        if index is not None:
            meanings.append(_Meaning(index, 0.0, level(tags)))
    if kind in (LINE, RING, LINES):
        way = way_class(tags)
        if way is not None:
            index, width = way
            meanings.append(_Meaning(index, width, level(tags)))
    return meanings


def _closed(lines: np.ndarray) -> np.ndarray:
    """Closed lines as rings."""
    if not len(lines):
        return lines
    points, owners = shapely.get_coordinates(lines, return_index=True)
    return shapely.linearrings(points, indices=owners)


def _mended(area: shapely.Geometry) -> shapely.Geometry | None:
    """The valid area of an invalid one; None if there is none."""
    if not np.isfinite(shapely.get_coordinates(area)).all():
        return None
    try:
        valid = shapely.make_valid(area)
    except shapely.GEOSException:  # one shape beyond mending must not end a run over millions
        return None
    parts = shapely.get_parts(shapely.get_parts(valid))
    parts = parts[shapely.get_type_id(parts) == POLYGON]
    if not len(parts):
        return None
    return shapely.multipolygons(parts)


def _without_collections(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace every geometry collection by its members.

    Returns:
        The shapes (m,), and for each the position of its owner in ``geometries``.
    """
    owners = np.arange(len(geometries))
    while (shapely.get_type_id(geometries) == COLLECTION).any():
        is_bundle = shapely.get_type_id(geometries) == COLLECTION
        members, bundle_of = shapely.get_parts(geometries[is_bundle], return_index=True)
        owners = np.concatenate([owners[~is_bundle], owners[is_bundle][bundle_of]])
        geometries = np.concatenate([geometries[~is_bundle], members])
    return geometries, owners
