"""Where a tile lies when its manifest says so, and the grid that follows."""

from dataclasses import dataclass

import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_geom
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.contract.grid import Grid, grid_at, grid_over, metric, on_earth, utm
from data.prepare.contract.source import usable

LONLAT = "OGC:CRS84"


@dataclass(frozen=True)
class Centre:
    """A point in degrees and the number of 10 m cells along a side."""

    lon: float
    lat: float
    cells: int

    def grid(self) -> Grid:
        """See grid_at."""
        return grid_at(self.lon, self.lat, self.cells)


@dataclass(frozen=True)
class Footprint:
    """A polygon (GeoJSON) in some CRS."""

    polygon: dict
    crs: str = LONLAT  # anything that GDAL understands: EPSG:n, WKT

    def grid(self) -> Grid:
        """The smallest square of whole cells around the polygon's bounds: in its own CRS where that
        is in local metres, else in the UTM zone of the middle of the bounds."""
        crs, polygon = CRS.from_user_input(self.crs), self.polygon
        if not metric(crs):
            lonlat = polygon if self.crs == LONLAT else transform_geom(crs, LONLAT, polygon)
            west, south, east, north = shapely.geometry.shape(lonlat).bounds
            crs = utm((west + east) / 2, (south + north) / 2)
            polygon = transform_geom(LONLAT, crs, lonlat)
        return grid_over(*shapely.geometry.shape(polygon).bounds, crs)


Spot = Centre | Footprint


def spot_of(record: dict, where: str) -> Spot | None:
    """The keys ``centre`` and ``cells``, or ``footprint``, of a record; None when it has none of
    them."""
    if "footprint" in record:
        if "centre" in record or "cells" in record:
            raise InputError(f"{where}: expected either centre and cells or footprint, found both")
        return footprint(record["footprint"], where)
    if ("centre" in record) != ("cells" in record):
        raise InputError(f"{where}: centre and cells need each other")
    return centre(record["centre"], record["cells"], where) if "centre" in record else None


def centre(point: object, cells: object, where: str) -> Centre:
    """The keys ``centre`` and ``cells`` of a manifest."""
    if not (
        isinstance(point, list | tuple)
        and len(point) == 2
        and all(_number(value) for value in point)
    ):
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


def footprint(shape: object, where: str) -> Footprint:
    """The key ``footprint``: a GeoJSON polygon in lon/lat, with a "crs" beside its coordinates in
    another CRS, or {"bounds": [left, bottom, right, top], "crs": "EPSG:n"}."""
    crs = shape.get("crs", LONLAT) if isinstance(shape, dict) else LONLAT
    if isinstance(shape, dict) and "bounds" in shape:
        bounds = shape["bounds"]
        if set(shape) - {"bounds", "crs"} or not (
            isinstance(bounds, list)
            and len(bounds) == 4
            and all(_number(value) for value in bounds)
        ):
            raise InputError(
                f'{where}: footprint: expected {{"bounds": [left, bottom, right, top], "crs": "EPSG:n"}}, '
                f"found {shape}"
            )
        shape = shapely.geometry.mapping(shapely.box(*bounds))
    try:
        polygon = shapely.geometry.shape(shape)
        sound = (
            polygon.geom_type in ("Polygon", "MultiPolygon")
            and polygon.is_valid
            and polygon.area > 0
        )
    except (GEOSException, AttributeError, KeyError, TypeError, ValueError, IndexError):
        sound = False
    if not sound:
        raise InputError(
            f"{where}: footprint: expected a GeoJSON polygon or bounds, found {str(shape)[:100]}"
        )
    west, south, east, north = polygon.bounds
    if crs == LONLAT and not (-180 <= west and east <= 180 and -80 <= south and north <= 84):
        raise InputError(
            f"{where}: footprint: expected degrees with a UTM zone, longitude first, found the bounds "
            f"{[west, south, east, north]}; give the crs of other coordinates"
        )
    try:
        known = CRS.from_user_input(crs)
    except (CRSError, TypeError, ValueError):
        raise InputError(
            f"{where}: footprint: crs {crs!r} is unknown; expected EPSG:n or WKT"
        ) from None
    if not usable(known) or not on_earth(known, west, south, east, north):
        raise InputError(
            f"{where}: footprint: the bounds {[west, south, east, north]} are nowhere in {crs[:60]}"
        )
    return Footprint(shapely.geometry.mapping(polygon), crs)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
