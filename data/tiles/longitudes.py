"""Longitudes of any winding: points and shapes at the 180th meridian."""

import numpy as np
import shapely
from shapely import affinity

TURN = 360.0  # degrees
HALF_TURN = 180.0
FARTHEST = 540.0  # degrees: a number beyond it is no longitude of any convention
POLE = 90.0


def wrapped(lon: float) -> float:
    """The same meridian within [-180, 180]; a longitude that lies there stays as it is."""
    if -HALF_TURN <= lon <= HALF_TURN:
        return lon
    return (lon + HALF_TURN) % TURN - HALF_TURN


def runs_over(shapes: np.ndarray | shapely.Geometry) -> np.ndarray:
    """Which shapes in degrees need ``cut_at_180``: they leave [-180, 180], or may jump in it."""
    bounds = shapely.bounds(shapes)  # ... 4
    west = bounds[..., 0]
    east = bounds[..., 2]
    return (west < -HALF_TURN) | (east > HALF_TURN) | (east - west > HALF_TURN)


def unwrapped(shape: shapely.Geometry) -> shapely.Geometry | None:
    """A shape in degrees whose longitudes run on across the 180th meridian.

    Points that follow each other more than half a turn apart are joined the short way: a ring from
    179.9 to -179.9 is 0.2 degrees wide. Parts are moved by whole turns to lie by the first one. A
    rectangle around the whole world, and a ring that runs along a pole, stay as they are.

    Args:
        shape: points, lines or polygons, also of several parts.

    Returns:
        The shape, from wherever its first point lies; None when a ring goes round a pole.
    """
    parts = []
    for part in shapely.get_parts(shape):
        part = _run_on(part)
        if part is None:
            return None
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    first = _middle(parts[0])
    moved = [_moved(part, round((first - _middle(part)) / TURN)) for part in parts]
    return shapely.union_all(shapely.make_valid(moved))


def cut_at_180(shape: shapely.Geometry) -> shapely.Geometry | None:
    """A shape in degrees within [-180, 180]: cut in two where it crosses the 180th meridian.

    Returns:
        The shape; None when a ring goes round a pole.
    """
    if not runs_over(shape):
        return shape
    whole = unwrapped(shape)
    if whole is None:
        return None
    if not whole.is_valid:
        whole = shapely.make_valid(whole)
    west, _, east, _ = whole.bounds
    first = int((west + HALF_TURN) // TURN)
    last = int((east + HALF_TURN) // TURN)
    pieces = []
    for turns in range(first, last + 1):
        moved = _moved(whole, -turns)
        pieces.append(shapely.clip_by_rect(moved, -HALF_TURN, -POLE, HALF_TURN, POLE))
    return shapely.union_all(pieces)


def _run_on(part: shapely.Geometry) -> shapely.Geometry | None:
    """``unwrapped`` for a shape of one part."""
    if part.geom_type == "Point" or not runs_over(part):
        return part
    if part.geom_type != "Polygon":
        return shapely.transform(part, _without_jumps)
    rings = []
    for ring in (part.exterior, *part.interiors):
        run = shapely.LineString(_without_jumps(shapely.get_coordinates(ring)))
        if not run.is_closed:
            if np.abs(shapely.get_coordinates(ring)[:, 1]).max() < POLE:
                return None
            return part
        rings.append(run)
    if not shapely.Polygon(rings[0].coords).area:
        return part
    outer = _middle(rings[0])
    holes = [_moved(hole, round((outer - _middle(hole)) / TURN)) for hole in rings[1:]]
    return shapely.Polygon(rings[0].coords, [hole.coords for hole in holes])


def _without_jumps(points: np.ndarray) -> np.ndarray:
    """Points (n, 2) of a line with longitudes that run on."""
    lon, lat = points.T
    turns = np.cumsum(np.round(np.diff(lon, prepend=lon[:1]) / TURN))  # whole, to stay exact
    return np.column_stack([lon - turns * TURN, lat])


def _middle(shape: shapely.Geometry) -> float:
    """The longitude half way between the western and the eastern end."""
    west, _, east, _ = shape.bounds
    return (west + east) / 2


def _moved(shape: shapely.Geometry, turns: int) -> shapely.Geometry:
    """The shape moved to the east by whole turns."""
    if not turns:
        return shape
    return affinity.translate(shape, turns * TURN)
