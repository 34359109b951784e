"""OpenStreetMap vectors -> label raster."""

import json
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from data.classes import draw_rank, osm_class
from data.errors import InputError
from data.tile import UNLABELLED

POLYGONS = ("Polygon", "MultiPolygon")


def read_features(path: str | Path, default_tags: dict | None = None) -> list[tuple[dict, int]]:
    """GeoJSON -> (polygon geometry in lon/lat, class index) of every feature whose tags name a class.

    ``default_tags`` stand for a feature without a telling tag (a file that holds nothing but buildings). Lines and
    points carry no area and are left out. Raises InputError when the file is no GeoJSON FeatureCollection."""
    try:
        collection = json.loads(Path(path).read_text())
        features = collection["features"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise InputError(f"{path}: expected a GeoJSON FeatureCollection, found something else") from None
    found = []
    for feature in features:
        geometry, tags = feature.get("geometry"), feature.get("properties") or {}
        index = osm_class(tags)
        index = osm_class(default_tags or {}) if index is None else index
        if index is not None and geometry and geometry["type"] in POLYGONS:
            found.append((geometry, index))
    return found


def burn(features: list[tuple[dict, int]], crs: CRS, transform: Affine, shape: tuple[int, int]) -> np.ndarray:
    """Polygons in lon/lat -> uint8 class raster of ``shape`` on ``crs`` and ``transform``, 255 where none lies.

    A pixel belongs to a polygon that holds its centre. Drawing order: by layer (classes.draw_rank), then larger areas
    first, so a small polygon is never hidden by the one around it."""
    shapes = [(transform_geom("EPSG:4326", crs, geometry), index) for geometry, index in features]
    shapes.sort(key=lambda entry: (draw_rank(entry[1]), -_extent(entry[0])))
    if not shapes:
        return np.full(shape, UNLABELLED, np.uint8)
    return rasterize(shapes, out_shape=shape, transform=transform, fill=UNLABELLED, dtype="uint8")


def _extent(geometry: dict) -> float:
    """Area of the outer rings in square units of the CRS (shoelace formula)."""
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    area = 0.0
    for rings in polygons:
        x, y = np.asarray(rings[0], float)[:, :2].T
        area += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    return area
