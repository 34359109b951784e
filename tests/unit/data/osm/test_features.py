"""Shapes burnt to rasters, against areas, widths and membership computed by other means."""

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS

from data.osm.features import boxes, burn, features_of, join, place
from data.tiles.classes import INDEX

UTM = CRS.from_epsg(32636)
LONLAT = CRS.from_epsg(4326)
GRID = Affine(
    1, 0, 500_000, 0, -1, 100
)  # 1 m pixels; 100 x 100 of them reach from (0, 0) to (100, 100)
TAGS = [
    {"landuse": "residential"},
    {"natural": "wood"},
    {"natural": "water"},
    {"building": "yes"},
    {"landuse": "quarry"},
    {"highway": "primary"},
    {"highway": "footway"},
    {"railway": "rail", "bridge": "yes"},
    {"barrier": "hedge"},
]


def features(*shapes):
    """(geometry in metres, tags) of each -> Features on GRID's CRS."""
    geometry = np.empty(len(shapes), object)
    geometry[:] = [
        shapely.transform(shape, lambda xy: np.add(xy, (500_000, 0))) for shape, _ in shapes
    ]
    return features_of(geometry, [tags for _, tags in shapes])


def drawn(*shapes, side=100):
    return burn(features(*shapes), GRID, (side, side))


def count(raster, name):
    return int((raster == INDEX[name]).sum())


def test_layers_lie_over_each_other():
    raster = drawn(
        (shapely.box(20, 20, 40, 40), {"building": "yes"}),
        (shapely.box(0, 0, 100, 90), {"landuse": "residential"}),
        (shapely.box(10, 10, 60, 60), {"natural": "water"}),
    )
    assert count(raster, "building") == 20 * 20
    assert count(raster, "water") == 50 * 50 - 20 * 20
    assert count(raster, "residential area") == 100 * 90 - 50 * 50
    assert (
        count(drawn(), "building") == 0 and (raster == 255).sum() == 1000
    )  # nothing drawn outside


def test_a_small_area_lies_over_the_large_one_of_its_layer():
    raster = drawn(
        (shapely.box(5, 5, 15, 15), {"landuse": "quarry"}),
        (shapely.box(0, 0, 50, 50), {"natural": "wood"}),
    )
    assert count(raster, "quarry") == 100


def test_wide_ways_lie_over_narrow_ones_and_bridges_over_both():
    road = (shapely.LineString([(0, 50), (100, 50)]), {"highway": "primary"})
    path = (shapely.LineString([(30, 0), (30, 100)]), {"highway": "footway"})
    rail = (shapely.LineString([(60, 0), (60, 100)]), {"railway": "rail", "bridge": "yes"})
    for order in ((road, path, rail), (rail, path, road)):
        raster = drawn(*order)
        assert raster[50, 30] == INDEX["road"] and raster[20, 30] == INDEX["footpath"]
        assert raster[50, 60] == INDEX["railway"]


SHAPES = st.builds(
    lambda kind, x, y, w, h, tags: (
        shapely.box(x, y, x + w, y + h)
        if kind == "box"
        else shapely.LineString([(x, y), (x + w, y + h), (x, y + h)]),
        tags,
    ),
    st.sampled_from(["box", "line"]),
    st.integers(-10, 90),
    st.integers(-10, 90),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(TAGS),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SHAPES, max_size=9), st.randoms())
def test_the_order_in_the_file_plays_no_part(shapes, random):
    shuffled = random.sample(shapes, len(shapes))
    np.testing.assert_array_equal(drawn(*shapes), drawn(*shuffled))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-20, 119), st.integers(-20, 119)), min_size=3, max_size=9, unique=True
    )
)
def test_a_pixel_belongs_to_what_holds_its_centre(corners):
    """Any polygon, also one that crosses itself: what make_valid says is inside, point by point."""
    polygon = shapely.Polygon(np.add(corners, 0.25))  # no corner or straight edge through a centre
    raster = drawn((polygon, {"natural": "water"}))
    valid = shapely.make_valid(polygon)
    columns, rows = np.meshgrid(np.arange(100) + 0.5, 99.5 - np.arange(100))
    clear = shapely.distance(valid.boundary, shapely.points(columns, rows)) > 1e-6
    inside = shapely.contains_xy(valid, columns, rows)
    np.testing.assert_array_equal((raster == INDEX["water"])[clear], inside[clear])


@settings(max_examples=40, deadline=None)
@given(st.floats(0, np.pi), st.sampled_from(["motorway", "primary", "service", "track"]))
def test_a_line_is_as_wide_as_its_class_says(angle, kind):
    """Area over length of a band right across a fine raster, at any angle."""
    width = {"motorway": 11, "primary": 8, "service": 4, "track": 3}[kind]
    far = 300 * np.array([np.cos(angle), np.sin(angle)])
    line = shapely.LineString([np.array([50, 50]) - far, np.array([50, 50]) + far])
    raster = burn(features((line, {"highway": kind})), GRID @ Affine.scale(0.25), (400, 400))
    rows, columns = np.indices((400, 400)) * 0.25 + 0.125
    middle = (
        np.hypot(columns - 50, 100 - rows - 50) < 40
    )  # a disc, so that both ends of the band are alike
    area = (raster[middle] != 255).sum() * 0.25**2
    expected = shapely.intersection(
        shapely.Point(50, 50).buffer(40, 64), line.buffer(width / 2, cap_style="flat")
    ).area
    assert area / 80 == pytest.approx(expected / 80, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, np.pi / 4))
def test_a_path_narrower_than_a_pixel_does_not_fall_into_dots(angle):
    line = shapely.LineString(
        [(-50, 50.3), (150, 50.3 + 200 * np.tan(angle) - 100 * np.tan(angle))]
    )
    raster = drawn((line, {"waterway": "ditch", "width": "0.3"}))
    y = 50.3 + np.tan(angle) / 2 * (np.arange(100) + 0.5 + 50)
    crossed = (y > 1) & (y < 99)
    assert (raster[:, crossed] != 255).any(axis=0).all()


def test_areas_that_cross_themselves_are_mended_and_hopeless_ones_counted():
    bow_tie = shapely.Polygon([(0, 0), (40, 40), (40, 0), (0, 40)])  # two triangles of 400 m2
    thread = shapely.Polygon([(0, 0), (40, 40), (0, 0), (0, 0)])
    lost = shapely.Polygon([(0, 0), (np.nan, 40), (40, 0), (0, 0)])
    found = features(
        *[(shape, {"natural": "water"}) for shape in (bow_tie, thread, lost, shapely.Polygon())]
    )
    assert len(found) == 1 and found.mended.tolist() == [True] and found.skipped == 3
    assert count(burn(found, GRID, (100, 100)), "water") == pytest.approx(800, abs=40)
    assert (
        features(
            (shapely.Point(1, 1).buffer(0), {"highway": "primary"}),
        ).skipped
        == 1
    )


def test_points_and_shapes_without_a_class_are_left_out():
    found = features(
        (shapely.Point(5, 5), {"building": "yes"}),
        (shapely.box(0, 0, 9, 9), {"name": "x"}),
        (shapely.LineString([(0, 0), (9, 9)]), {"landuse": "grass"}),
    )
    assert len(found) == 0 and found.skipped == 0
    collection = shapely.GeometryCollection(
        [
            shapely.box(0, 0, 9, 9),
            shapely.GeometryCollection([shapely.box(20, 20, 29, 29), shapely.Point(1, 1)]),
        ]
    )
    assert features((collection, {"building": "yes"})).size.tolist() == [81, 81]


def test_default_tags_serve_only_where_no_tag_tells():
    shape = np.array([shapely.box(0, 0, 9, 9)] * 4, object)
    tags = [{}, {"building": "yes"}, {"building": "yes", "tunnel": "yes"}, {"name": "x"}]
    found = features_of(shape, tags, {"natural": "wood"})
    assert found.index.tolist() == [INDEX["forest"], INDEX["building"], INDEX["forest"]]


@settings(max_examples=25, deadline=None)
@given(st.floats(-179.9, 179.9), st.floats(-75, 75), st.integers(0, 2**32 - 1))
def test_shapes_reach_the_raster_from_degrees(lon, lat, seed):
    """Anywhere on Earth: a point is in the square that was cut around it, pixel by pixel against
    pyproj."""
    utm = CRS.from_epsg((32600 if lat >= 0 else 32700) + min(int((lon + 180) // 6) + 1, 60))
    there = Transformer.from_crs(4326, utm.to_epsg(), always_xy=True)
    x, y = np.round(there.transform(lon, lat))
    ring = np.add(np.random.default_rng(seed).uniform(-150, 250, (7, 2)), (x, y))
    polygon = shapely.MultiPoint(ring).convex_hull
    degrees = shapely.transform(
        polygon,
        lambda xy: np.column_stack(
            Transformer.from_crs(utm.to_epsg(), 4326, always_xy=True).transform(*xy.T)
        ),
    )
    parts = []
    for box in boxes(LONLAT, (x, y, x + 100, y + 100), target=utm):
        parts.append(
            place(
                features_of(np.array([degrees], object), [{"natural": "water"}]),
                LONLAT,
                box,
                target=utm,
            )
        )
    if abs(lon) > 179.99:  # the hull in degrees spans the world there: see the test below
        return
    raster = burn(join(parts), Affine(1, 0, x, 0, -1, y + 100), (100, 100))
    columns, rows = np.meshgrid(x + np.arange(100) + 0.5, y + 99.5 - np.arange(100))
    clear = shapely.distance(polygon.boundary, shapely.points(columns, rows)) > 0.02
    np.testing.assert_array_equal(
        (raster == INDEX["water"])[clear], shapely.contains_xy(polygon, columns, rows)[clear]
    )


def test_a_raster_across_the_180th_meridian_gets_both_sides():
    utm = CRS.from_epsg(32760)
    (x, y) = Transformer.from_crs(4326, 32760, always_xy=True).transform(180, -17)
    found = boxes(LONLAT, (x - 500, y - 500, x + 500, y + 500), target=utm)
    assert len(found) == 2
    sides = np.array(
        [shapely.box(179.99, -17.01, 180, -16.99), shapely.box(-180, -17.01, -179.99, -16.99)],
        object,
    )
    tags = [{"natural": "water"}, {"natural": "wood"}]
    raster = burn(
        join([place(features_of(sides, tags), LONLAT, box, target=utm) for box in found]),
        Affine(10, 0, x - 500, 0, -10, y + 500),
        (100, 100),
    )
    assert count(raster, "water") == pytest.approx(5000, abs=100)
    assert count(raster, "forest") == pytest.approx(5000, abs=100)
