"""The region grid: equal area, stable ids, nearest cell."""

import numpy as np
import pytest
from pyproj import Geod, Transformer

from data.errors import InputError
from data.tiles.regions import CELL, COLUMNS, NORTH, ROWS, WEST, RegionTable, cell_centre, cell_of

TO_DEGREES = Transformer.from_crs(6933, 4326, always_xy=True)


def test_every_cell_has_the_published_area_on_the_ellipsoid():
    for row, column in ((3, 10), (60, 300), (112, 5), (180, 500)):
        x, y = WEST + column * CELL, NORTH - row * CELL
        ramp = np.linspace(0, CELL, 400)
        ring_x = np.r_[x + ramp, np.full(400, x + CELL), x + ramp[::-1], np.full(400, x)]
        ring_y = np.r_[np.full(400, y), y - ramp, np.full(400, y - CELL), y - ramp[::-1]]
        area, _ = Geod(ellps="WGS84").polygon_area_perimeter(*TO_DEGREES.transform(ring_x, ring_y))
        assert abs(area) / 1e6 == pytest.approx(4294.967, rel=2e-4)


def test_cell_of_its_own_centre_and_of_the_corners_of_the_world():
    for cell in (0, 1, COLUMNS + 7, 112 * COLUMNS + 265, (ROWS - 2) * COLUMNS + 500):
        assert cell_of(*cell_centre(cell)) == cell
    assert cell_of(-180, 90) == 0
    assert cell_of(180, -90) == ROWS * COLUMNS - 1
    with pytest.raises(InputError, match="degrees"):
        cell_of(541, 0)
    with pytest.raises(InputError, match="latitude"):
        cell_of(48, 99)


@pytest.mark.parametrize("lon", [10.0, 179.9, -179.9])
def test_a_longitude_of_any_winding_is_in_the_same_cell(lon):
    assert (
        len({cell_of(lon + turn, -17.0) for turn in (-360, 0, 360) if abs(lon + turn) < 540}) == 1
    )


def test_table_lookup_and_nearest():
    kampala, flanders, goslar = (32.59, 0.35), (3.02, 50.82), (10.5, 51.67)
    table = RegionTable.from_points([kampala, goslar, flanders, kampala])
    assert len(table) == 3 and list(table.cells) == sorted(table.cells)
    assert {table.lookup(*place) for place in (kampala, flanders, goslar)} == {0, 1, 2}
    assert table.cells[table.lookup(*flanders)] == cell_of(*flanders)
    paris = (2.35, 48.86)
    assert table.lookup(*paris) is None
    assert table.nearest(*paris) == table.lookup(*flanders)
    assert table.nearest(*paris, max_km=50) is None
    assert RegionTable(()).nearest(*paris) is None


def test_nearest_crosses_the_date_line():
    table = RegionTable.from_points([(-179.5, 10.0), (170.0, 10.0)])
    assert table.nearest(179.9, 10.0) == table.lookup(-179.5, 10.0)


def test_json_round_trip_and_other_grids_refused():
    table = RegionTable.from_points([(1.0, 2.0), (50.0, -60.0)])
    assert RegionTable.from_json(table.to_json()) == table
    with pytest.raises(InputError, match="expected grid"):
        RegionTable.from_json({**table.to_json(), "cell_metres": 10_000})
    with pytest.raises(InputError, match="ascend"):
        RegionTable((3, 2))
