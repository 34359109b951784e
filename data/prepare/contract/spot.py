"""Where a tile lies when its manifest says so, and the grid that follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import shapely
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_geom
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.contract.files import has_place
from data.prepare.contract.grid import Grid, grid_at, grid_over, is_metric, is_on_earth, utm

LONLAT = "OGC:CRS84"


@dataclass(frozen=True)
class Centre:
    """A point in degrees and the number of 10 m cells along a side."""

    lon: float
    lat: float
    cells: int

    def grid(self) -> Grid:
        """See ``grid_at``."""
        return grid_at(self.lon, self.lat, cells=self.cells)


@dataclass(frozen=True)
class Footprint:
    """A polygon (GeoJSON) in some CRS."""

    polygon: dict
    crs: object = LONLAT  # anything that rasterio understands: EPSG:n, WKT

    def grid(self) -> Grid:
        """The smallest square of whole cells around the polygon's bounds.

        It is in the polygon's own CRS where that is in local metres, else in the UTM zone of the
        middle of the bounds.
        """
        crs = CRS.from_user_input(self.crs)
        polygon = self.polygon
        if not is_metric(crs):
            if self.crs != LONLAT:
                polygon = transform_geom(crs, LONLAT, polygon)
            west, south, east, north = shapely.geometry.shape(polygon).bounds
            crs = utm((west + east) / 2, (south + north) / 2)
            polygon = transform_geom(LONLAT, crs, polygon)
        return grid_over(BoundingBox(*shapely.geometry.shape(polygon).bounds), crs)


Spot = Centre | Footprint


def spot_of(record: dict, where: str) -> Spot | None:
    """The place that a record of a manifest names.

    Args:
        record: it may have the keys ``centre`` and ``cells``, or ``footprint``.
        where: the record's place in the manifest, for errors.

    Returns:
        The place; None when the record has none of these keys.

    Raises:
        InputError: keys that do not go together, or a value that is no place.
    """
    if "footprint" in record:
        if "centre" in record or "cells" in record:
            raise InputError(f"{where}: expected either centre and cells or footprint, found both")
        return footprint(record["footprint"], where)
    if ("centre" in record) != ("cells" in record):
        raise InputError(f"{where}: centre and cells need each other")
    if "centre" in record:
        return centre(record["centre"], record["cells"], where)
    return None


def centre(point: object, cells: object, where: str) -> Centre:
    """The keys ``centre`` ([lon, lat] in degrees) and ``cells`` of a manifest."""
    if not _is_numbers(point, 2):
        raise InputError(f"{where}: centre: expected [lon, lat] in degrees, found {point}")
    lon, lat = point
    if not (-180 <= lon <= 180 and -80 <= lat <= 84):  # also false for NaN
        raise InputError(
            f"{where}: centre [{lon}, {lat}]: expected degrees with a UTM zone, longitude first"
        )
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
    polygon = _polygon(geometry, where)
    west, south, east, north = polygon.bounds
    if crs == LONLAT and not (west >= -180 and east <= 180 and south >= -80 and north <= 84):
        raise InputError(
            f"{where}: footprint: expected degrees with a UTM zone, longitude first, found the "
            f"bounds {[west, south, east, north]}; give the crs of other coordinates"
        )
    try:
        known = CRS.from_user_input(crs)
    except (CRSError, TypeError, ValueError):
        raise InputError(
            f"{where}: footprint: crs {crs!r} is unknown; expected EPSG:n or WKT"
        ) from None
    if not has_place(known) or not is_on_earth(known, BoundingBox(west, south, east, north)):
        raise InputError(
            f"{where}: footprint: the bounds {[west, south, east, north]} are nowhere in "
            f"{str(crs)[:60]}"
        )
    return Footprint(shapely.geometry.mapping(polygon), crs)


def _box(geometry: dict, where: str) -> dict:
    """The rectangle of a footprint that is given by its bounds."""
    if not (geometry.keys() <= {"bounds", "crs"} and _is_numbers(geometry["bounds"], 4)):
        raise InputError(
            f'{where}: footprint: expected {{"bounds": [left, bottom, right, top], '
            f'"crs": "EPSG:n"}}, found {geometry}'
        )
    left, bottom, right, top = geometry["bounds"]
    return shapely.geometry.mapping(shapely.box(left, bottom, right, top))


def _polygon(geometry: object, where: str) -> shapely.Geometry:
    """GeoJSON -> a valid polygon."""
    try:
        polygon = shapely.geometry.shape(geometry)
        is_area = polygon.geom_type in ("Polygon", "MultiPolygon")
        sound = is_area and polygon.is_valid and polygon.area > 0
    except (GEOSException, AttributeError, KeyError, TypeError, ValueError, IndexError):
        sound = False
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
