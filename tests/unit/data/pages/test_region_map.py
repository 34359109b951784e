"""The map of regions: boxes that hold their points, counts, names of the axes."""

import math

import numpy as np
import pytest

from data.pages.outlines import countries
from data.pages.region_map import cell_box, region_map
from data.tiles.regions import cell_of

PLACES = [(32.5, 0.3), (32.6, 0.3), (4.4, 51.0), (4.4, 50.2), (-60.0, -3.0)]  # lon lat


def draw():
    cells = sorted({cell_of(*place) for place in PLACES})
    counts = [sum(cell_of(*place) == cell for place in PLACES) for cell in cells]
    return region_map(cells, counts, np.array(PLACES))


def test_cell_boxes_hold_their_points_and_one_area():
    rng = np.random.default_rng(0)
    for lon, lat in zip(rng.uniform(-179, 179, 60), rng.uniform(-75, 75, 60)):
        box = cell_box(cell_of(lon, lat))
        assert box.west - 1e-6 <= lon <= box.east + 1e-6
        assert box.south - 0.01 <= lat <= box.north + 0.01
        band = math.sin(math.radians(box.north)) - math.sin(math.radians(box.south))
        area = 6371.0088**2 * math.radians(box.east - box.west) * band
        assert area == pytest.approx(65.536**2, rel=0.02)  # a sphere instead of the ellipsoid


def test_every_sample_is_counted_in_one_part():
    world, *parts = draw().axes
    assert world.get_title() == "5 regions, 5 samples"
    titles = [axis.get_title() for axis in parts]
    assert sorted(title[3:] for title in titles) == [
        "1 region, 1 sample",
        "2 regions, 2 samples",
        "2 regions, 2 samples",
    ]
    assert [title[0] for title in titles] == ["A", "B", "C"]
    for axis in parts:  # the numbers on the regions of a part are those of its title
        numbers = [int(words.get_text()) for words in axis.texts]
        assert sum(numbers) == int(axis.get_title().split()[3])


def test_every_panel_has_outlines_and_named_axes():
    for axis in draw().axes:
        assert len(axis.collections[0].get_paths()) == len(countries())
        assert axis.get_xlabel() == "longitude, degrees"
        assert axis.get_ylabel() == "latitude, degrees"
