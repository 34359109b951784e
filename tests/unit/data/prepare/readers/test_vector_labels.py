"""Vector files of every kind as a label source: the same map gives the same raster."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.osm.features import features_of
from data.prepare.place.grid import Grid
from data.prepare.readers.vector_labels import VectorLabels
from data.tiles.classes import INDEX
from tests.unit.maps import (
    GRID,
    MAP,
    UTM,
    in_metres,
    lonlat,
    polygon,
    write_geojson,
    write_geopackage,
    write_osm,
)


def draw(path, grid=GRID, **options):
    reader = VectorLabels(path, **options)
    reader.check()
    assert reader.place() is None
    (labels,) = reader.read(grid)
    return labels.draw(grid)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return draw(write_geojson(tmp_path_factory.mktemp("map") / "a.geojson", MAP))


def test_the_map_is_drawn_as_computed_by_hand(expected):
    """Pixel centres of the map's areas, with what lies over them taken away by shapely."""
    columns, rows = np.meshgrid(np.arange(256) * 1.25 + 0.625, 320 - np.arange(256) * 1.25 - 0.625)
    lines = {
        name: line.buffer(width / 2)
        for name, line, width in (
            ("road", MAP[10][0], 8 + 2 * 3.25),
            ("street", MAP[11][0], 7),
            ("rail", MAP[13][0], 4),
            ("path", MAP[12][0], 2),
            ("stream", MAP[14][0], 2),
            ("hedge", MAP[16][0], 1.5),
        )
    }
    roads = shapely.union(lines["road"], lines["street"])
    shapes = {
        "building": shapely.union_all([MAP[i][0] for i in (5, 6, 7)]),
        "railway": lines["rail"] - roads,
        "parking lot": MAP[8][0],
        "coniferous forest": MAP[4][0] - lines["stream"],
        "maize": MAP[3][0] - roads - lines["rail"] - lines["stream"],
        "hedge": lines["hedge"] - lines["stream"],
        "park": MAP[1][0] - MAP[2][0] - lines["path"],
        "footpath": lines["path"],
    }
    edges = shapely.union_all([shape.boundary for shape in (*shapes.values(), *lines.values())])
    clear = (
        shapely.distance(edges, shapely.points(columns, rows)) > 0.02
    )  # OpenStreetMap's 1e-7 degrees are 0.011 m
    assert clear.mean() > 0.95
    for name, shape in shapes.items():
        inside = shapely.contains_xy(shape, columns, rows)
        if name == "railway":  # a bridge lies over the street
            inside = shapely.contains_xy(lines["rail"], columns, rows)
        np.testing.assert_array_equal((expected == INDEX[name])[clear], inside[clear], err_msg=name)
        assert inside.sum() > 100


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_geopackage(path / "a.gpkg", MAP),
        lambda path: write_geopackage(path / "a.gpkg", MAP, tag_column="other_tags"),
        lambda path: write_geopackage(path / "a.gpkg", MAP, tag_column="tags"),
        lambda path: write_osm(path / "a.osm", MAP),
        lambda path: write_osm(path / "a.osm.pbf", MAP),
        lambda path: write_osm(path / "a.osm.bz2", MAP),
        lambda path: write_geojson(path / "a.geojson", MAP[::-1]),
    ],
    ids=["columns", "hstore", "tags", "osm", "pbf", "bz2", "reversed"],
)
def test_the_same_map_in_any_file_is_the_same_raster(tmp_path, expected, write):
    np.testing.assert_array_equal(draw(write(tmp_path)), expected)


def test_a_projected_file_differs_by_rounding_alone(tmp_path, expected):
    raster = draw(write_geopackage(tmp_path / "a.gpkg", MAP, metres=True))
    assert (raster != expected).mean() < 1e-3


def test_gdals_own_export_of_an_osm_file_is_the_same_raster(tmp_path, expected):
    """GDAL sorts keys into columns and the rest into other_tags, and closed ways into layers of its
    own."""
    source, path = write_osm(tmp_path / "a.osm.pbf", MAP), tmp_path / "a.gpkg"
    for layer in ("points", "lines", "multilinestrings", "multipolygons", "other_relations"):
        meta, _, wkb, data = pyogrio.raw.read(source, layer=layer)
        pyogrio.raw.write(
            path,
            wkb,
            data,
            meta["fields"],
            layer=layer,
            driver="GPKG",
            crs=meta["crs"],
            geometry_type=meta["geometry_type"],
            append=path.exists(),
        )
    np.testing.assert_array_equal(draw(path), expected)


def test_all_layers_are_read_or_those_that_are_named(tmp_path, expected):
    path = write_geopackage(tmp_path / "a.gpkg", MAP[:5], "ground")
    write_geopackage(path, MAP[5:10], "houses", append=True)
    write_geopackage(path, MAP[10:], "ways", metres=True, append=True)
    pyogrio.raw.write(
        path, None, [np.array(["x"], object)], ["note"], layer="notes", driver="GPKG", append=True
    )
    assert (draw(path) != expected).mean() < 1e-3
    np.testing.assert_array_equal(draw(path, layers=("ground", "houses")) == INDEX["road"], False)
    with pytest.raises(
        InputError, match=r"layer .* named 'notes'; it has \['ground', 'houses', 'ways'\]"
    ):
        VectorLabels(path, layers=("notes",)).check()


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.permutations(MAP))
def test_the_order_in_the_file_plays_no_part(tmp_path, expected, shuffled):
    np.testing.assert_array_equal(draw(write_geojson(tmp_path / "a.geojson", shuffled)), expected)


def test_only_the_tiles_window_is_read(tmp_path):
    """Of a city of houses a tile reads those within reach."""
    boxes = [
        (shapely.box(x, y, x + 10, y + 10), {"building": "yes"})
        for x in range(-2000, 2000, 40)
        for y in range(-2000, 2000, 40)
    ]
    paths = write_geopackage(tmp_path / "a.gpkg", boxes), write_osm(tmp_path / "a.osm.pbf", boxes)
    for path in paths:
        (labels,) = VectorLabels(path).read(GRID)
        reached = sum(
            shapely.distance(shape, shapely.box(0, 0, 320, 320)) < 101 for shape, _ in boxes
        )
        assert len(labels.features) == pytest.approx(reached, rel=0.15) and reached < 200
    np.testing.assert_array_equal(draw(paths[0]), draw(paths[1]))
    assert (draw(paths[0]) == INDEX["building"]).sum() * 1.25**2 == 64 * 100


def test_neighbouring_tiles_agree_with_one_large_tile(tmp_path):
    path = write_geopackage(tmp_path / "a.gpkg", MAP)
    whole = draw(path)
    for row in (0, 1):
        for column in (0, 1):
            part = draw(path, Grid(UTM, GRID.x0 + 160 * column, GRID.y0 - 160 * row, 16))
            np.testing.assert_array_equal(
                part, whole[128 * row : 128 * row + 128, 128 * column : 128 * column + 128]
            )


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.geojson", b""),
        ("a.geojson", b"[1, 2]"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": [{'),
        ("a.gpkg", b"SQLite format 3\0" + bytes(200)),
        ("a.gpkg", b"no"),
    ],
)
def test_other_broken_files_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: expected a vector file") as refused:
        VectorLabels(path).check()
    assert "\n" not in str(refused.value)


def test_a_geopackage_cut_in_the_middle_is_refused(tmp_path):
    houses = [
        (shapely.box(x, y, x + 10, y + 10), {"building": "yes"})
        for x in range(0, 1000, 20)
        for y in range(0, 1000, 20)
    ]
    path = write_geopackage(tmp_path / "a.gpkg", houses)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="expected a vector file"):
        draw(path)


def test_what_cannot_tell_its_classes_or_place_is_refused(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", [(shapely.box(0, 0, 9, 9), {"name": "x"})])
    with pytest.raises(InputError, match="no column is an OpenStreetMap key"):
        VectorLabels(path).check()
    assert (draw(path, tags={"building": "yes"}) == INDEX["building"]).sum() == pytest.approx(
        81 / 1.25**2, abs=8
    )
    (fault,) = VectorLabels(path, {"bulding": "yes"}).check_keys()
    assert "expected an OpenStreetMap tag that names a class" in fault
    osm = write_osm(tmp_path / "a.osm", MAP)
    for options in ({"tags": {"building": "yes"}}, {"layers": ("lines",)}):
        (fault,) = VectorLabels(osm, **options).check_keys()
        assert "has its own tags and no layers" in fault
    placeless = tmp_path / "b.gpkg"
    with pytest.warns(UserWarning, match="crs"):
        pyogrio.raw.write(
            placeless,
            shapely.to_wkb(np.array([shapely.box(0, 0, 9, 9)], object)),
            [np.array(["yes"], object)],
            ["building"],
            layer="a",
            driver="GPKG",
            geometry_type="Polygon",
        )
    with pytest.raises(InputError, match="layer 'a': expected a projected or geographic CRS"):
        VectorLabels(placeless).check()


def test_mended_and_lost_shapes_are_told_and_nothing_stops(tmp_path):
    bow_tie = polygon((10, 10), (50, 50), (50, 10), (10, 50))
    line = {
        "type": "Feature",
        "properties": {"natural": "water"},
        "geometry": {
            "type": "Polygon",
            "coordinates": [[lonlat(shapely.Point(60, 60)).coords[0]] * 4],
        },
    }
    path = write_geojson(tmp_path / "a.geojson", [(bow_tie, {"natural": "water"})])
    collection = json.loads(path.read_text())
    collection["features"].append(line)
    path.write_text(json.dumps(collection))
    (labels,) = VectorLabels(path).read(GRID)
    assert labels.source == "a.geojson (invalid shapes: 1 mended, 1 left out)"
    assert (labels.draw(GRID) == INDEX["water"]).sum() * 1.25**2 == pytest.approx(800, abs=40)
    (labels,) = VectorLabels(write_osm(tmp_path / "a.osm", [(bow_tie, {"natural": "water"})])).read(
        GRID
    )
    assert labels.source == "a.osm (invalid shapes: 1 mended, 0 left out)"


def test_numbers_in_columns_are_widths(tmp_path):
    line = shapely.LineString([(-20, 160), (340, 160)])
    path = tmp_path / "a.gpkg"
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array([in_metres(line)] * 2, object)),
        [np.array(["primary", "track"], object), np.array([20.0, np.nan])],
        ["highway", "width"],
        layer="a",
        driver="GPKG",
        geometry_type="LineString",
        crs="EPSG:32636",
    )
    assert (draw(path)[:, 100] == INDEX["road"]).sum() == 16


def test_drawing_on_another_grid_is_refused(tmp_path):
    (labels,) = VectorLabels(write_geojson(tmp_path / "a.geojson", MAP)).read(GRID)
    with pytest.raises(ValueError, match="was read for"):
        labels.draw(Grid(UTM, GRID.x0 + 10, GRID.y0, 32))
    assert len(features_of(np.array([], object), [])) == 0
