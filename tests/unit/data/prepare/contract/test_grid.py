"""Grids and resampling, against arithmetic done apart from rasterio."""

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.grid import (
    Grid,
    grid_inside,
    grid_of_pixels,
    metric,
    resample,
    resample_labels,
    utm,
)

UTM32, ETRS32, MERCATOR, LONLAT = (CRS.from_epsg(n) for n in (32632, 25832, 3857, 4326))


def overlap_weights(source_start, source_step, count, start, step, size):
    """(size, count) shares of each target interval that lie in each source interval, by interval
    arithmetic."""
    edges = source_start + source_step * np.arange(count + 1)
    targets = start + step * np.arange(size + 1)
    shared = np.minimum(edges[None, 1:], targets[1:, None]) - np.maximum(
        edges[None, :-1], targets[:-1, None]
    )
    weights = np.clip(shared, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def test_metric_crs():
    assert metric(UTM32) and metric(ETRS32) and not metric(MERCATOR) and not metric(LONLAT)
    assert not metric(CRS.from_epsg(2263))  # projected, in feet


def test_utm_zone():
    assert utm(32.59, 0.35).to_epsg() == 32636 and utm(-70.0, -33.0).to_epsg() == 32719
    assert utm(180.0, 10.0).to_epsg() == 32660


def test_ten_metre_pixels_are_the_grid():
    assert grid_of_pixels(Affine(10, 0, 500_005, 0, -10, 90), UTM32, (7, 6)) == Grid(
        UTM32, 500_005, 90, 6
    )
    assert (
        grid_of_pixels(Affine(9.99479, 0, 500_005, 0, -9.99479, 90), UTM32, (6, 6)).cells == 6
    )  # 3 cm off in all
    assert grid_of_pixels(Affine(20, 0, 0, 0, -20, 0), UTM32, (6, 6)) is None
    assert grid_of_pixels(Affine(10, 0, 0, 0, -10, 0), MERCATOR, (6, 6)) is None


def test_whole_cells_in_the_middle_of_a_raster():
    grid = grid_inside(Affine(0.2, 0, 565_642.6, 0, -0.2, 5_770_980.4), ETRS32, (304, 304))
    assert grid.cells == 6
    assert (grid.x0, grid.y0) == pytest.approx((565_643.0, 5_770_980.0))  # 2 px a side are cut
    with pytest.raises(InputError, match="one cell"):
        grid_inside(Affine(0.2, 0, 0, 0, -0.2, 0), ETRS32, (40, 40))


def test_other_crs_goes_to_snapped_utm_inside_the_raster():
    pixel = 0.15
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(10.0, 55.0)
    grid = grid_inside(Affine(pixel, 0, x, 0, -pixel, y), MERCATOR, (1024, 1024))
    assert grid.crs.to_epsg() == 32632 and grid.x0 % 10 == 0 and grid.y0 % 10 == 0
    assert grid.cells in (7, 8)  # 153.6 m of the projection are 88 m on the ground at 55 degrees
    side = grid.cells * 10
    back = Transformer.from_crs(32632, 3857, always_xy=True)
    for dx, dy in ((0, 0), (side, 0), (0, -side), (side, -side)):
        px, py = back.transform(grid.x0 + dx, grid.y0 + dy)
        assert x <= px <= x + 1024 * pixel and y - 1024 * pixel <= py <= y


def test_aligned_pixels_are_sliced_not_resampled():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(2, 3, 9, 8)).astype(np.float32)
    valid = rng.random((2, 9, 8)) > 0.5
    grid = Grid(UTM32, 500_020.0, 90.0, 4)
    found, mask = resample(array, valid, Affine(10, 0, 500_000, 0, -10, 100), UTM32, grid)
    np.testing.assert_array_equal(found, array[..., 1:5, 2:6])
    np.testing.assert_array_equal(mask, valid[:, 1:5, 2:6])


def test_fine_pixels_are_averaged_by_area():
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (1, 3, 304, 304), np.uint8)
    grid = Grid(ETRS32, 0.4, -0.4, 6)
    found, mask = resample(
        array, np.ones((1, 304, 304), bool), Affine(0.2, 0, 0, 0, -0.2, 0), ETRS32, grid, 32
    )
    weights = overlap_weights(0, 0.2, 304, 0.4, 0.3125, 192)
    expected = np.einsum("ih,jw,tchw->tcij", weights, weights, array.astype(float), optimize=True)
    assert mask.all() and found.dtype == np.uint8
    assert np.abs(found - expected).max() < 0.51  # rounding only


def test_coarse_pixels_are_interpolated_between_centres():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(2, 1, 5, 5)).astype(np.float32)
    grid = Grid(UTM32, 0.0, 0.0, 10)
    found, mask = resample(
        array, np.ones((2, 5, 5), bool), Affine(20, 0, 0, 0, -20, 0), UTM32, grid
    )
    centres = (np.arange(10) * 10 + 5) / 20 - 0.5  # in source pixels
    low = np.clip(np.floor(centres).astype(int), 0, 4)
    high, share = (
        np.clip(low + 1, 0, 4),
        np.clip(centres, 0, None) - np.floor(np.clip(centres, 0, None)),
    )
    matrix = np.zeros((10, 5))
    for i in range(10):
        matrix[i, low[i]] += 1 - share[i]
        matrix[i, high[i]] += share[i]
    np.testing.assert_allclose(
        found, np.einsum("ih,jw,tchw->tcij", matrix, matrix, array), atol=1e-5
    )
    assert mask.all()


def test_invalid_source_pixels_spoil_what_they_touch_and_nothing_else():
    array, valid = np.ones((1, 1, 6, 6), np.float32), np.ones((1, 6, 6), bool)
    valid[0, 2, 2] = False
    array[0, 0, 2, 2] = np.nan
    shifted = Affine(
        10, 0, 5, 0, -10, -5
    )  # half a pixel off: each target pixel is the mean of four
    found, mask = resample(array, valid, shifted, UTM32, Grid(UTM32, 10.0, -10.0, 4))
    expected = np.ones((4, 4), bool)
    expected[1:3, 1:3] = False
    np.testing.assert_array_equal(mask[0], expected)
    assert np.isfinite(found).all() and (found[0, 0][expected] == 1).all()


def test_outside_the_source_is_invalid():
    array = np.ones((1, 1, 4, 4), np.uint16)
    _, mask = resample(
        array,
        np.ones((1, 4, 4), bool),
        Affine(10, 0, 0, 0, -10, 0),
        UTM32,
        Grid(UTM32, 20.0, 0.0, 4),
    )
    np.testing.assert_array_equal(mask[0], np.repeat([[True, True, False, False]], 4, axis=0))


def test_labels_take_the_nearest_pixel():
    labels = np.random.default_rng(0).integers(0, 9, (512, 512), np.uint8)
    found = resample_labels(
        labels, Affine(0.2, 0, 0, 0, -0.2, 0), ETRS32, Grid(ETRS32, 1.2, -1.2, 10), 8, 255
    )
    index = np.floor((1.2 + 1.25 * (np.arange(80) + 0.5)) / 0.2 + 1e-9).astype(int)
    sure = (
        np.abs((1.2 + 1.25 * (np.arange(80) + 0.5)) / 0.2 % 1 - 0.5) < 0.49
    )  # centres on a pixel edge are a tie
    np.testing.assert_array_equal(
        found[np.ix_(sure, sure)], labels[np.ix_(index[sure], index[sure])]
    )
    assert sure.sum() > 40
