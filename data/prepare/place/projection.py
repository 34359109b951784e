"""What the coordinates of a CRS are on the ground: degrees, metres, and the zone of a place."""

from functools import cache

import numpy as np
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from data.tiles.longitudes import FARTHEST, HALF_TURN, TURN

# A projection is metric where 1 m along any direction is within 0.65 % of 1 m on the ground: 6.5 cm
# in a cell. UTM keeps to it over twice the width of a zone, UPS up to the pole (0.60 %). Web
# Mercator fails even on the equator, where its metre to the north is 0.67 % short.
TRUE_SCALE = 0.0065
STEP = 100.0  # units of a CRS, short against the Earth and long against rounding
UTM_NORTH = 84.0  # degrees: UTM ends here
UTM_SOUTH = -80.0
UPS_NORTH = 5041  # EPSG, with easting first
UPS_SOUTH = 5042
ZONE = 6  # degrees
ZONES = 60
WGS84 = Geod(ellps="WGS84")


@cache
def to_degrees(crs: CRS) -> Transformer:
    """From coordinates to longitude and latitude."""
    return Transformer.from_crs(crs.to_wkt(), "OGC:CRS84", always_xy=True)


@cache
def from_degrees(crs: CRS) -> Transformer:
    """From longitude and latitude to coordinates."""
    return Transformer.from_crs("OGC:CRS84", crs.to_wkt(), always_xy=True)


def is_true_metric(crs: CRS, x: float, y: float) -> bool:
    """Whether the coordinates of ``crs`` are metres on the ground at a point.

    The scale is measured on the ellipsoid, in all directions: degrees and feet fail everywhere,
    Mercator and equal-area projections wherever they stretch more than ``TRUE_SCALE``.
    """
    if not crs.is_projected:
        return False
    lon, lat = to_degrees(crs).transform([x, x + STEP, x], [y, y, y + STEP])
    if not np.isfinite([lon, lat]).all():
        return False
    start = ([lon[0]] * 2, [lat[0]] * 2)
    azimuth, _, distance = WGS84.inv(*start, lon[1:], lat[1:])
    radians = np.radians(azimuth)
    # Rows: metres to the east and to the north. Columns: of one unit along x and along y.
    ground = np.array([np.sin(radians), np.cos(radians)]) * distance / STEP
    stretch = np.linalg.svd(ground, compute_uv=False)
    return bool(np.linalg.det(ground) > 0 and np.abs(stretch - 1).max() <= TRUE_SCALE)


def local_crs(lon: float, lat: float) -> CRS:
    """The UTM zone (WGS 84) of a point; beyond UTM's latitudes the polar stereographic UPS.

    The zone is the 6 degrees that hold the longitude, whatever its winding: 190, -170 and 550 are
    one meridian. The wider zones that maps of Norway and Svalbard use are not followed: within
    TRUE_SCALE the metres of any zone are right.
    """
    if lat >= UTM_NORTH:
        return CRS.from_epsg(UPS_NORTH)
    if lat < UTM_SOUTH:
        return CRS.from_epsg(UPS_SOUTH)
    # A tiny negative number modulo a turn is rounded to the whole turn.
    zone = min(int((lon + HALF_TURN) % TURN // ZONE), ZONES - 1) + 1
    if lat >= 0:
        return CRS.from_epsg(32600 + zone)
    return CRS.from_epsg(32700 + zone)


def is_on_earth(crs: CRS, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether points have a longitude and a latitude.

    False where coordinates and CRS do not belong together, such as metres in a CRS in degrees.
    Later steps would fail on them with an error of PROJ.
    """
    lon, lat = to_degrees(crs).transform(x, y)
    possible_lon = np.isfinite(lon).all() and (np.abs(lon) <= FARTHEST + 1e-3).all()
    return bool(possible_lon and (np.abs(lat) <= 90.001).all())


def turn_of(crs: CRS, lon: float, lat: float) -> float | None:
    """How far x goes in one turn around the Earth, in units of ``crs``.

    Args:
        crs: any CRS.
        lon: of the place where it is measured, degrees.
        lat: of that place.

    Returns:
        The period of x; None where x does not follow the longitude alone, as in UTM.
    """
    if crs.is_geographic:
        return 2 * np.pi / crs.units_factor[1]
    step = 1e-3  # degrees
    lons = np.array([lon - step, lon, lon + step])
    here, y_here = from_degrees(crs).transform(lons, np.full(3, lat))
    there, y_there = from_degrees(crs).transform(lons, np.full(3, lat / 2 + 10))
    if not np.isfinite([here, y_here, there, y_there]).all():
        return None
    # One of the two steps may lead across the meridian at which x starts anew.
    pace = np.abs(np.diff(here)).min()
    other_pace = np.abs(np.diff(there)).min()
    if abs(pace - other_pace) > 1e-6 * pace or np.ptp(y_here) > 1e-6 * pace:
        return None
    return float(pace / step * TURN)
