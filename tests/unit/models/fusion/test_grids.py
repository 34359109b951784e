"""Resizing of maps and validity between grids, against torch's pooling and interpolation and plain
loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.errors import ModelError
from models.fusion.grids import cell_validity, resize_matrix, to_grid


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return maps, torch.rand(*shape[:-1], generator=generator) > 0.4


@pytest.mark.parametrize("size, side", [(8, 4), (8, 2), (8, 1), (6, 2), (4, 4)])
def test_coarser_equals_average_pooling_when_all_is_valid(size, side):
    maps, _ = draw(3, size, size, 5)
    found, valid = to_grid(maps, torch.ones(3, size, size, dtype=torch.bool), (side, side))
    expected = F.adaptive_avg_pool2d(maps.movedim(-1, 1), side).movedim(1, -1)
    torch.testing.assert_close(found, expected)
    assert valid.all()


@pytest.mark.parametrize("size, side", [(2, 4), (2, 8), (4, 6), (1, 4), (3, 5)])
def test_finer_equals_bilinear_interpolation_when_all_is_valid(size, side):
    maps, _ = draw(3, size, size, 5)
    found, valid = to_grid(maps, torch.ones(3, size, size, dtype=torch.bool), (side, side))
    expected = F.interpolate(
        maps.movedim(-1, 1), side, mode="bilinear", align_corners=False
    ).movedim(1, -1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert valid.all()


def test_coarser_averages_the_valid_cells_of_a_block():
    maps, valid = draw(4, 6, 6, 3)
    found, ok = to_grid(maps, valid, (2, 2))
    for m, i, j in np.ndindex(4, 2, 2):
        block, mask = (
            maps[m, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3],
            valid[m, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3],
        )
        assert ok[m, i, j] == (2 * mask.sum() >= 9)
        expected = block[mask].mean(0) if ok[m, i, j] else torch.zeros(3, dtype=torch.float64)
        torch.testing.assert_close(found[m, i, j], expected, rtol=1e-6, atol=1e-6)


def test_area_weights_when_the_sides_do_not_divide():
    expected = torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    torch.testing.assert_close(resize_matrix(3, 2), expected)
    for size, side in [(14, 4), (7, 3), (5, 8), (16, 7)]:
        torch.testing.assert_close(resize_matrix(size, side).sum(1), torch.ones(side))


@pytest.mark.parametrize("size, side", [(8, 4), (2, 8), (4, 4), (14, 4), (3, 5)])
def test_invalid_cells_have_no_influence(size, side):
    maps, valid = draw(5, size, size, 3)
    spoilt = maps.where(
        valid[..., None], torch.tensor(float("nan"), dtype=torch.float64)
    ).requires_grad_()
    found, ok = to_grid(spoilt, valid, (side, side))
    expected, _ = to_grid(maps.where(valid[..., None], -1e6), valid, (side, side))
    assert torch.equal(found, expected) and found.isfinite().all()
    assert (found[~ok] == 0).all()
    found.square().sum().backward()
    assert (spoilt.grad[~valid] == 0).all() and spoilt.grad.isfinite().all()


@pytest.mark.parametrize("size, side", [(8, 4), (2, 8), (14, 4), (3, 5)])
def test_a_constant_map_stays_constant_where_valid(size, side):
    _, valid = draw(20, size, size, 1)
    found, ok = to_grid(torch.full((20, size, size, 1), 7.0), valid, (side, side))
    assert ok.any() and not ok.all()
    torch.testing.assert_close(found[ok], torch.full_like(found[ok], 7.0))


def test_validity_needs_half_of_the_area():
    for size, side in [(4, 2), (12, 2), (64, 4), (6, 1), (20, 2)]:
        ratio = size // side
        block = torch.zeros(ratio * ratio, dtype=torch.bool)
        half = (ratio * ratio + 1) // 2
        block[:half] = True
        exactly = block.view(ratio, ratio).repeat(2, 3, side, side)  # 2 3 size size
        assert cell_validity(exactly, (side, side)).shape == (2, 3, side, side)
        assert cell_validity(exactly, (side, side)).all()
        block[half - 1] = False
        assert not cell_validity(block.view(ratio, ratio).repeat(side, side), (side, side)).any()


def test_validity_on_a_finer_grid_is_that_of_the_cell_around():
    _, valid = draw(3, 4, 4, 1)
    assert torch.equal(
        cell_validity(valid, (8, 8)), valid.repeat_interleave(2, -1).repeat_interleave(2, -2)
    )
    expected = F.interpolate(valid[:, None].float(), 7, mode="nearest-exact")[:, 0] > 0
    assert torch.equal(cell_validity(valid, (7, 7)), expected)
    assert torch.equal(cell_validity(valid, (4, 4)), valid)


def test_oblong_maps_and_bf16():
    maps, _ = draw(2, 4, 8, 3)
    found, ok = to_grid(maps.bfloat16(), torch.ones(2, 4, 8, dtype=torch.bool), (4, 4))
    assert found.dtype == torch.bfloat16 and found.shape == (2, 4, 4, 3) and ok.all()
    expected = maps.unflatten(2, (4, 2)).mean(3)
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)


def test_wrong_shape_is_named():
    with pytest.raises(ModelError, match="expected valid of shape"):
        to_grid(torch.zeros(2, 4, 4, 3), torch.ones(1, 4, 4, dtype=torch.bool), (2, 2))
