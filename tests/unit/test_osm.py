"""Polygons burnt to rasters, against point-in-polygon by hand."""

import json

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from data.classes import INDEX
from data.errors import InputError
from data.osm import burn, read_features

UTM = CRS.from_epsg(32636)
TO_LONLAT = Transformer.from_crs(32636, 4326, always_xy=True)


def square(x0, y0, x1, y1):
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    return {"type": "Polygon", "coordinates": [[list(TO_LONLAT.transform(x, y)) for x, y in corners]]}


def test_drawing_order_does_not_depend_on_file_order():
    area, pond, house = square(0, 0, 100, 100), square(10, 10, 60, 60), square(20, 20, 40, 40)
    moved = [(area, INDEX["residential area"]), (pond, INDEX["water"]), (house, INDEX["building"])]
    grid = Affine(1, 0, 500_000, 0, -1, 100)
    shifted = [({"type": "Polygon", "coordinates": [[list(TO_LONLAT.transform(x + 500_000, y)) for x, y in
                 ((a, a), (b, a), (b, b), (a, b), (a, a))]]}, index)
               for (a, b), (_, index) in zip(((0, 100), (10, 60), (20, 40)), moved)]
    first, second = burn(shifted, UTM, grid, (120, 120)), burn(shifted[::-1], UTM, grid, (120, 120))
    np.testing.assert_array_equal(first, second)
    assert (first == INDEX["building"]).sum() == 20 * 20
    assert (first == INDEX["water"]).sum() == 50 * 50 - 20 * 20
    assert (first == INDEX["residential area"]).sum() == 100 * 100 - 50 * 50
    assert (first == 255).sum() == 120 * 120 - 100 * 100  # nothing drawn outside


def test_small_area_lies_over_the_large_one_of_its_layer():
    large = ({"type": "Polygon", "coordinates": [[list(TO_LONLAT.transform(500_000 + x, y)) for x, y in
             ((0, 0), (50, 0), (50, 50), (0, 50), (0, 0))]]}, INDEX["forest"])
    small = ({"type": "Polygon", "coordinates": [[list(TO_LONLAT.transform(500_000 + x, y)) for x, y in
             ((5, 5), (15, 5), (15, 15), (5, 15), (5, 5))]]}, INDEX["quarry"])
    raster = burn([small, large], UTM, Affine(1, 0, 500_000, 0, -1, 50), (50, 50))
    assert (raster == INDEX["quarry"]).sum() == 100


def test_features_without_class_or_area_are_left_out(tmp_path):
    shape = square(0, 0, 9, 9)
    features = [{"geometry": shape, "properties": {"building": "yes"}}, {"geometry": shape, "properties": None},
                {"geometry": {"type": "Point", "coordinates": [0, 0]}, "properties": {"building": "yes"}},
                {"geometry": None, "properties": {"building": "yes"}}]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert len(read_features(path)) == 1
    assert [index for _, index in read_features(path, {"natural": "wood"})] == [INDEX["building"], INDEX["forest"]]
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match="FeatureCollection"):
        read_features(path)
