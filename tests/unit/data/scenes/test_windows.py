"""The tiles of a raster lie on its own pixels, whole ones only, in any CRS."""

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.source import Place
from data.prepare.place.georeference import Georeference
from data.scenes.windows import windows_of

UTM = CRS.from_epsg(32631)


def place(transform, shape, crs=UTM, modality="ms"):
    return Place(modality, Georeference(transform, crs), shape)


@pytest.mark.parametrize("phase", [0, 5, 3.7])
def test_tiles_lie_on_the_pixels_wherever_their_corner_is(phase):
    scene = place(Affine(10, 0, 600_000 + phase, 0, -10, 5_700_000 - phase), (500, 620))
    windows = windows_of(scene, cells=128, stride=100)
    assert [w.name for w in windows] == [f"r{r:03d}-c{c:03d}" for r in range(4) for c in range(5)]
    for i, window in enumerate(windows):
        row, column = divmod(i, 5)
        grid = window.grid
        assert (grid.x0, grid.y0) == (
            600_000 + phase + 1000 * column,
            5_700_000 - phase - 1000 * row,
        )
        assert grid.cells == 128 and grid.crs == UTM


def test_rows_that_run_to_the_north_give_the_same_tiles():
    down = place(Affine(10, 0, 600_000, 0, -10, 5_700_000), (300, 300))
    up = place(Affine(10, 0, 600_000, 0, 10, 5_697_000), (300, 300))
    assert windows_of(down, cells=64, stride=64) == windows_of(up, cells=64, stride=64)


def test_a_drift_over_a_large_scene_stays_on_the_pixels():
    """Pixels of 10.0001 m are 10 m over a tile, and 1 m off at the end of 10,000 of them."""
    scene = place(Affine(10.0001, 0, 600_000, 0, -10.0001, 5_700_000), (10_000, 10_000))
    last = windows_of(scene, cells=100, stride=100)[-1].grid
    column = (last.x0 - 600_000) / 10.0001
    assert len(windows_of(scene, cells=100, stride=100)) == 10_000
    assert abs(column - 9900) < 1e-6


def test_other_metric_pixels_begin_at_the_corner_of_the_raster():
    scene = place(
        Affine(0.3125, 0, 600_003.3, 0, -0.3125, 5_700_001.1), (32 * 70, 32 * 40), UTM, "hr"
    )
    windows = windows_of(scene, cells=20, stride=20)
    assert len(windows) == 3 * 2
    assert (windows[-1].grid.x0, windows[-1].grid.y0) == (600_203.3, 5_699_601.1)


def test_degrees_are_cut_in_the_local_zone_inside_the_raster():
    side = 1 / 11132  # 10 m of latitude
    scene = place(Affine(side, 0, 10.0, 0, -side, 50.0), (500, 900), CRS.from_epsg(4326))
    windows = windows_of(scene, cells=64, stride=64)
    assert len(windows) > 20
    back = Transformer.from_crs(32632, 4326, always_xy=True)
    for window in windows:
        assert window.grid.crs == CRS.from_epsg(32632) and window.grid.x0 % 10 == 0
        left, bottom, right, top = window.grid.bounds
        lon, lat = back.transform([left, right, left, right], [bottom, bottom, top, top])
        assert min(lon) > 10 - side and max(lon) < 10 + 900 * side + side
        assert min(lat) > 50 - 500 * side - side and max(lat) < 50 + side


def test_what_gives_no_tiles_is_told():
    small = place(Affine(10, 0, 600_000, 0, -10, 5_700_000), (100, 620))
    with pytest.raises(InputError, match="has 100 x 620 cells of 10 m, less than a tile of 128"):
        windows_of(small, cells=128, stride=128)
    europe = place(
        Affine(100, 0, 2_500_000, 0, -100, 5_500_000), (40_000, 40_000), CRS.from_epsg(3035)
    )
    with pytest.raises(InputError, match="in a part of it only"):
        windows_of(europe, cells=128, stride=128)
    wide = place(Affine(0.01, 0, 0, 0, -0.01, 50), (1000, 4000), CRS.from_epsg(4326))
    with pytest.raises(InputError, match="in a part of it only|leaves the zone"):
        windows_of(wide, cells=128, stride=128)


def test_a_whole_product_is_cut_at_once():
    scene = place(Affine(10, 0, 600_000, 0, -10, 5_700_000), (10_980, 10_980))
    windows = windows_of(scene, cells=128, stride=128)
    assert len(windows) == 85 * 85 and len({w.name for w in windows}) == 85 * 85
    x0 = np.array([w.grid.x0 for w in windows])
    assert x0.max() == 600_000 + 84 * 1280
