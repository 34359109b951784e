"""Grids of tiles, against arithmetic done apart from rasterio."""

import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import Grid, grid_inside, grid_of_pixels

UTM32, ETRS32, MERCATOR, LONLAT = (CRS.from_epsg(n) for n in (32632, 25832, 3857, 4326))


def test_ten_metre_pixels_are_the_grid():
    assert grid_of_pixels(Georeference(Affine(10, 0, 500_005, 0, -10, 90), UTM32), (7, 6)) == Grid(
        UTM32, 500_005, 90, 6
    )
    assert (
        grid_of_pixels(
            Georeference(Affine(9.99479, 0, 500_005, 0, -9.99479, 90), UTM32), (6, 6)
        ).cells
        == 6
    )  # 3 cm off in all
    assert grid_of_pixels(Georeference(Affine(20, 0, 0, 0, -20, 0), UTM32), (6, 6)) is None
    assert grid_of_pixels(Georeference(Affine(10, 0, 0, 0, -10, 0), MERCATOR), (6, 6)) is None


def test_whole_cells_in_the_middle_of_a_raster():
    grid = grid_inside(
        Georeference(Affine(0.2, 0, 565_642.6, 0, -0.2, 5_770_980.4), ETRS32), (304, 304)
    )
    assert grid.cells == 6
    assert (grid.x0, grid.y0) == pytest.approx((565_643.0, 5_770_980.0))  # 2 px a side are cut
    with pytest.raises(InputError, match="one cell"):
        grid_inside(Georeference(Affine(0.2, 0, 0, 0, -0.2, 0), ETRS32), (40, 40))


def test_other_crs_goes_to_snapped_utm_inside_the_raster():
    pixel = 0.15
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(10.0, 55.0)
    grid = grid_inside(Georeference(Affine(pixel, 0, x, 0, -pixel, y), MERCATOR), (1024, 1024))
    assert grid.crs.to_epsg() == 32632 and grid.x0 % 10 == 0 and grid.y0 % 10 == 0
    assert grid.cells in (7, 8)  # 153.6 m of the projection are 88 m on the ground at 55 degrees
    side = grid.cells * 10
    back = Transformer.from_crs(32632, 3857, always_xy=True)
    for dx, dy in ((0, 0), (side, 0), (0, -side), (side, -side)):
        px, py = back.transform(grid.x0 + dx, grid.y0 + dy)
        assert x <= px <= x + 1024 * pixel and y - 1024 * pixel <= py <= y
