"""Pixel statistics and principal components against numpy."""

import numpy as np
import pytest
import torch

from engine.evaluate.baselines import (
    PIXELS,
    QUANTILES,
    STATISTICS,
    PixelFeatures,
    principal_components,
)
from engine.evaluate.tiles import TileBatch


@pytest.fixture
def batch():
    """Two tiles of two frames; the second one has nothing valid."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(2, 2, 3, 16, 16))).float()
    valid = torch.from_numpy(rng.random((2, 2, 16, 16)) < 0.7)
    valid[1] = False
    images = images.masked_fill(~valid[:, :, None], 0.0)
    return TileBatch(
        keys=["a", ""],
        images={"hr": images},
        valid={"hr": valid},
        days={"hr": torch.zeros(2, 2, dtype=torch.int64)},
        region=torch.tensor([-1, -1]),
        labels=torch.full((2, 2, 2), -1),
        problems={},
    )


def test_statistics_are_those_of_the_valid_pixels(batch):
    described = PixelFeatures(grid=2)(batch)
    images = batch.images["hr"][0].numpy()  # T C H W
    valid = batch.valid["hr"][0].numpy()  # T H W
    pixels = images.transpose(1, 0, 2, 3)[:, valid]  # C n
    expected = [pixels.mean(1), pixels.std(1), *np.quantile(pixels, QUANTILES, axis=1)]
    np.testing.assert_allclose(
        described.vectors[STATISTICS][0], np.concatenate(expected), atol=1e-5
    )
    assert described.present[STATISTICS].tolist() == [True, False]
    assert not described.vectors[STATISTICS][1].any()
    assert described.cells[STATISTICS].shape == (2, 2, 2, 6)
    assert described.cells[PIXELS].shape == (2, 2, 2, 3 * 16)
    assert described.vectors[PIXELS].shape == (2, 3 * 16 * 16)


def test_pixels_of_a_cell_are_its_own(batch):
    batch.valid["hr"][:] = True
    cells = PixelFeatures(grid=4)(batch).cells[PIXELS][0]  # 4 4 48
    mean = batch.images["hr"][0].mean(0)  # C H W, over the frames
    own = mean[:, 4:8, 12:16]  # the cell of row 1, column 3, whose pixels are whole
    np.testing.assert_allclose(cells[1, 3], own.movedim(0, -1).flatten(), atol=1e-6)


@pytest.mark.parametrize("shape", [(50, 12), (9, 30)])
def test_components_are_those_of_the_decomposition(shape):
    rng = np.random.default_rng(1)
    fitted = rng.normal(size=shape) * np.geomspace(5, 0.1, shape[1]) + 4
    rows = rng.normal(size=(7, shape[1]))
    _, _, directions = np.linalg.svd(fitted - fitted.mean(0), full_matrices=False)
    expected = (rows - fitted.mean(0)) @ directions[:5].T
    projected = principal_components(torch.from_numpy(fitted), torch.from_numpy(rows), 5)
    np.testing.assert_allclose(abs(projected.numpy()), abs(expected), rtol=1e-4, atol=1e-5)


def test_few_rows_give_few_components():
    rows = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    assert principal_components(rows, rows).shape == (4, 3)
