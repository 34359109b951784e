"""Where a tile lies when its manifest says so, and the grid that follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import shapely
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.place.georeference import crs_of_text, has_place
from data.prepare.place.grid import Grid, Lattice, grid_at, grid_over
from data.prepare.place.projection import is_on_earth, is_true_metric, local_crs, to_degrees
from data.tiles.longitudes import FARTHEST, unwrapped

LONLAT = "OGC:CRS84"


@dataclass(frozen=True)
class Centre:
    """A point in degrees and the number of 10 m cells along a side."""

    lon: float
    lat: float
    cells: int | None  # None: as many as the tile's patches have

    def grid(self, lattice: Lattice | None = None) -> Grid:
        """See ``grid_at``; the number of cells must be known."""
        assert self.cells is not None  # placement takes it from the patches
        return grid_at(self.lon, self.lat, cells=self.cells, lattice=lattice)


@dataclass(frozen=True)
class Footprint:
    """A polygon (GeoJSON) in some CRS. In degrees its longitudes run on across the meridian 180."""

    polygon: dict
    crs: object = LONLAT  # anything that rasterio understands: EPSG:n, WKT

    def grid(self, lattice: Lattice | None = None) -> Grid:
        """The smallest square of whole cells around the polygon's bounds.

        Args:
            lattice: where the cells lie; default: from the upper left corner of the bounds in
                ``own_crs``, else on multiples of 10 m in the local zone of their middle.
        """
        crs = CRS.from_user_input(self.crs)
        shape = shapely.geometry.shape(self.polygon)
        if lattice is None:
            lattice = self._own_lattice(shape)
        target = lattice.crs

        def carry(points: np.ndarray) -> np.ndarray:
            return np.column_stack(transform(crs, target, *points.T))

        if crs != target:
            shape = shapely.transform(shape, carry)
        return grid_over(BoundingBox(*shape.bounds), lattice)

    def _own_lattice(self, shape: shapely.Geometry) -> Lattice:
        """Where the cells lie if no source says it."""
        own = self.own_crs
        if own is None:
            crs = CRS.from_user_input(self.crs)
            return Lattice(local_crs(*to_degrees(crs).transform(*_middle(shape))))
        left, _, _, top = shape.bounds
        return Lattice(own, left, top)

    @property
    def own_crs(self) -> CRS | None:
        """The polygon's CRS where its coordinates are metres on the ground, else None."""
        crs = CRS.from_user_input(self.crs)
        if is_true_metric(crs, *_middle(shapely.geometry.shape(self.polygon))):
            return crs
        return None


@dataclass(frozen=True)
class Cut:
    """A square of cells that is known already, as of a tile that is cut from a scene."""

    square: Grid

    def grid(self, lattice: Lattice | None = None) -> Grid:
        """The square, whatever ``lattice`` is."""
        return self.square


Spot = Centre | Footprint | Cut


def spot_of(record: dict, where: str, *, has_size: bool = False) -> Spot | None:
    """The place that a record of a manifest names.

    Args:
        record: it may have the keys ``centre`` and ``cells``, or ``footprint``.
        where: the record's place in the manifest, for errors.
        has_size: the sources say how many cells there are, so that ``cells`` may be missing.

    Returns:
        The place; None when the record has none of these keys.

    Raises:
        InputError: keys that do not go together, or a value that is no place.
    """
    if "footprint" in record:
        if "centre" in record or "cells" in record:
            raise InputError(f"{where}: expected either centre and cells or footprint, found both")
        return footprint(record["footprint"], where)
    if ("centre" in record) != ("cells" in record) and not (has_size and "centre" in record):
        raise InputError(f"{where}: centre and cells need each other")
    if "centre" in record:
        return centre(record["centre"], record.get("cells"), where)
    return None


def centre(point: object, cells: object, where: str) -> Centre:
    """The keys ``centre`` ([lon, lat] in degrees) and ``cells`` of a manifest."""
    if not _is_numbers(point, 2):
        raise InputError(f"{where}: centre: expected [lon, lat] in degrees, found {point}")
    lon, lat = point
    if not (abs(lon) <= FARTHEST and abs(lat) <= 90):  # also false for NaN
        raise InputError(f"{where}: centre [{lon}, {lat}]: expected degrees, longitude first")
    if cells is None:
        return Centre(float(lon), float(lat), None)
    if not isinstance(cells, int) or isinstance(cells, bool) or cells < 1:
        raise InputError(
            f"{where}: cells: expected a whole number of 10 m cells above 0, found {cells!r}"
        )
    return Centre(float(lon), float(lat), cells)


def footprint(geometry: object, where: str) -> Footprint:
    """The key ``footprint`` of a manifest.

    Args:
        geometry: a GeoJSON polygon in lon/lat, with a "crs" beside its coordinates in another CRS,
            or ``{"bounds": [left, bottom, right, top], "crs": "EPSG:n"}``.
        where: the record's place in the manifest, for errors.

    Raises:
        InputError: no polygon, an unknown CRS, or coordinates that are nowhere in it.
    """
    crs: object = LONLAT
    if isinstance(geometry, dict):
        crs = geometry.get("crs", LONLAT)
        if "bounds" in geometry:
            geometry = _box(geometry, where)
    known = _known_crs(crs, where)
    polygon = _polygon(geometry, where, in_degrees=known.is_geographic)
    west, south, east, north = polygon.bounds
    if crs == LONLAT and not (max(-west, east) <= FARTHEST and south >= -90 and north <= 90):
        raise InputError(
            f"{where}: footprint: expected degrees, longitude first, found the bounds "
            f"{[west, south, east, north]}; give the crs of other coordinates"
        )
    x = np.array([west, east, west, east])
    y = np.array([south, south, north, north])
    if not has_place(known) or not is_on_earth(known, x, y):
        raise InputError(
            f"{where}: footprint: the bounds {[west, south, east, north]} are nowhere in "
            f"{str(crs)[:60]}"
        )
    return Footprint(shapely.geometry.mapping(polygon), crs)


def _known_crs(crs: object, where: str) -> CRS:
    """The CRS that a footprint names."""
    try:
        return crs_of_text(crs)
    except (CRSError, TypeError, ValueError):
        raise InputError(
            f"{where}: footprint: crs {crs!r} is unknown; expected EPSG:n or WKT"
        ) from None


def _middle(shape: shapely.Geometry) -> tuple[float, float]:
    """The middle of a shape's bounds."""
    left, bottom, right, top = shape.bounds
    return (left + right) / 2, (bottom + top) / 2


def _box(geometry: dict, where: str) -> dict:
    """The rectangle of a footprint that is given by its bounds."""
    if not (geometry.keys() <= {"bounds", "crs"} and _is_numbers(geometry["bounds"], 4)):
        raise InputError(
            f'{where}: footprint: expected {{"bounds": [left, bottom, right, top], '
            f'"crs": "EPSG:n"}}, found {geometry}'
        )
    left, bottom, right, top = geometry["bounds"]
    return shapely.geometry.mapping(shapely.box(left, bottom, right, top))


def _polygon(geometry: object, where: str, *, in_degrees: bool) -> shapely.Geometry:
    """GeoJSON -> a valid polygon. In degrees it may cross the 180th meridian in any form."""
    try:
        polygon = shapely.geometry.shape(geometry)
        is_area = polygon.geom_type in ("Polygon", "MultiPolygon")
        if is_area and in_degrees:
            polygon = unwrapped(polygon)
        sound = is_area and polygon is not None and polygon.is_valid and polygon.area > 0
    except (GEOSException, AttributeError, KeyError, TypeError, ValueError, IndexError):
        sound = False
        polygon = shapely.Polygon()
    if polygon is None:
        raise InputError(
            f"{where}: footprint: goes round a pole, which degrees cannot say; give the bounds in "
            "a polar CRS, such as EPSG:3995 or EPSG:3031"
        )
    if not sound:
        raise InputError(
            f"{where}: footprint: expected a GeoJSON polygon or bounds, found {str(geometry)[:100]}"
        )
    return polygon


def _is_numbers(value: object, count: int) -> TypeGuard[Sequence[float]]:
    """Whether ``value`` is a list of ``count`` numbers."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return False
    return all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
