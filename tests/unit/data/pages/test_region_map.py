"""The map of regions: boxes that hold their points, counts, outlines, and what it says without
them."""

import math

import numpy as np
import pytest
import shapely

from data.pages import region_map
from data.pages.region_map import cell_box, countries, outlines
from data.tiles.regions import cell_of

PLACES = [(32.5, 0.3), (32.6, 0.3), (4.4, 51.0), (4.4, 50.2), (-60.0, -3.0)]  # lon lat


@pytest.fixture
def no_outlines(tmp_path, monkeypatch):
    """An installed pyogrio without the small map."""
    monkeypatch.setattr(region_map, "NATURAL_EARTH", tmp_path / "naturalearth_lowres.shp")
    countries.cache_clear()
    yield
    countries.cache_clear()


def draw():
    cells = sorted({cell_of(*place) for place in PLACES})
    counts = [sum(cell_of(*place) == cell for place in PLACES) for cell in cells]
    return region_map.region_map(cells, counts, np.array(PLACES))


def test_cell_boxes_hold_their_points_and_one_area():
    rng = np.random.default_rng(0)
    for lon, lat in zip(rng.uniform(-179, 179, 60), rng.uniform(-75, 75, 60)):
        west, south, east, north = cell_box(cell_of(lon, lat))
        assert west - 1e-6 <= lon <= east + 1e-6 and south - 0.01 <= lat <= north + 0.01
        band = math.sin(math.radians(north)) - math.sin(math.radians(south))
        area = 6371.0088**2 * math.radians(east - west) * band
        assert area == pytest.approx(65.536**2, rel=0.02)  # a sphere instead of the ellipsoid


def test_every_sample_is_counted_in_one_part():
    world, *parts = draw().axes
    titles = [axis.get_title() for axis in parts]
    assert world.get_title().endswith(f"samples {len(PLACES)}") and len(parts) == 3
    assert sorted(int(title.rsplit(" ", 1)[1]) for title in titles) == [1, 2, 2]
    for axis in parts:  # the numbers on the regions of a part are those of its title
        numbers = [int(words.get_text()) for words in axis.texts]
        assert sum(numbers) == int(axis.get_title().rsplit(" ", 1)[1])


def test_outlines_are_the_worlds_countries():
    rings = countries()
    land = shapely.union_all([shapely.Polygon(ring) for ring in rings])
    assert shapely.contains_xy(land, *np.transpose(PLACES)).all() and not shapely.contains_xy(
        land, -30, 0
    )  # an ocean
    assert outlines() == "Outlines of countries: Natural Earth."
    assert all(len(axis.collections[0].get_paths()) == len(rings) for axis in draw().axes)


def test_without_outlines_the_map_is_drawn_and_says_so(no_outlines):
    assert countries() == [] and "No outlines of countries: pyogrio" in outlines()
    assert len(draw().axes) == 4
