"""Resampling, against arithmetic done apart from rasterio."""

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import Grid
from data.prepare.place.resample import resample, resample_labels

UTM32 = CRS.from_epsg(32632)
ETRS32 = CRS.from_epsg(25832)


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


def test_aligned_pixels_are_sliced_not_resampled():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(2, 3, 9, 8)).astype(np.float32)
    valid = rng.random((2, 9, 8)) > 0.5
    grid = Grid(UTM32, 500_020.0, 90.0, 4)
    found, mask = resample(
        array, valid, Georeference(Affine(10, 0, 500_000, 0, -10, 100), UTM32), grid
    )
    np.testing.assert_array_equal(found, array[..., 1:5, 2:6])
    np.testing.assert_array_equal(mask, valid[:, 1:5, 2:6])


def test_fine_pixels_are_averaged_by_area():
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (1, 3, 304, 304), np.uint8)
    grid = Grid(ETRS32, 0.4, -0.4, 6)
    found, mask = resample(
        array,
        np.ones((1, 304, 304), bool),
        Georeference(Affine(0.2, 0, 0, 0, -0.2, 0), ETRS32),
        grid,
        pixels=32,
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
        array, np.ones((2, 5, 5), bool), Georeference(Affine(20, 0, 0, 0, -20, 0), UTM32), grid
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
    found, mask = resample(array, valid, Georeference(shifted, UTM32), Grid(UTM32, 10.0, -10.0, 4))
    expected = np.ones((4, 4), bool)
    expected[1:3, 1:3] = False
    np.testing.assert_array_equal(mask[0], expected)
    assert np.isfinite(found).all() and (found[0, 0][expected] == 1).all()


def test_outside_the_source_is_invalid():
    array = np.ones((1, 1, 4, 4), np.uint16)
    _, mask = resample(
        array,
        np.ones((1, 4, 4), bool),
        Georeference(Affine(10, 0, 0, 0, -10, 0), UTM32),
        Grid(UTM32, 20.0, 0.0, 4),
    )
    np.testing.assert_array_equal(mask[0], np.repeat([[True, True, False, False]], 4, axis=0))


def test_labels_take_the_nearest_pixel():
    labels = np.random.default_rng(0).integers(0, 9, (512, 512), np.uint8)
    found = resample_labels(
        labels,
        Georeference(Affine(0.2, 0, 0, 0, -0.2, 0), ETRS32),
        Grid(ETRS32, 1.2, -1.2, 10),
        pixels=8,
        fill=255,
    )
    index = np.floor((1.2 + 1.25 * (np.arange(80) + 0.5)) / 0.2 + 1e-9).astype(int)
    sure = (
        np.abs((1.2 + 1.25 * (np.arange(80) + 0.5)) / 0.2 % 1 - 0.5) < 0.49
    )  # centres on a pixel edge are a tie
    np.testing.assert_array_equal(
        found[np.ix_(sure, sure)], labels[np.ix_(index[sure], index[sure])]
    )
    assert sure.sum() > 40
