"""Matched places against maps that hold their own coordinates, scipy, and plain loops."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from data.stream.views import View, affine
from models.pretraining.losses.correspondence import match, sample
from tests.unit.formulas import sample_by_loops
from tests.unit.scenes import place, random_affines, random_maps


def cell_places(affines, height, width):
    """Tile coordinates (B, V, h, w, 2) of all cell centres, by loops."""
    out = torch.empty(*affines.shape[:2], height, width, 2, dtype=torch.float64)
    for b, v, i, j in np.ndindex(out.shape[:4]):
        out[b, v, i, j] = affines[b, v] @ torch.tensor(
            [(j + 0.5) / width, (i + 0.5) / height, 1], dtype=torch.float64
        )
    return out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_the_affine_of_the_scenes_is_that_of_the_data(flip, turns):
    np.testing.assert_allclose(
        place(3, 5, 7, 2, flip, turns), affine(View(3, 5, 7, 2, flip=flip, turns=turns)), atol=1e-12
    )


def test_places_equal_loops():
    student, teacher = random_affines(2, 3, 2, 8, seed=1), random_affines(2, 2, 6, 16, seed=2)
    coords, inside = match(student, teacher, (3, 4))
    assert coords.shape == (2, 3, 2, 3, 4, 2) and coords.dtype == torch.float64
    places = cell_places(student, 3, 4)
    for b, s, t, i, j in np.ndindex(2, 3, 2, 3, 4):
        a = teacher[b, t].numpy()
        uv = np.linalg.solve(a[:, :2], places[b, s, i, j].numpy() - a[:, 2])
        np.testing.assert_allclose(coords[b, s, t, i, j], 2 * uv - 1, atol=1e-9)
        assert bool(inside[b, s, t, i, j]) == bool((uv > -1e-9).all() and (uv < 1 + 1e-9).all())
    assert inside.any() and not inside.all()


def test_maps_of_coordinates_give_back_the_place():
    """A map whose value is its own place on the tile, read at a matched cell, says where the cell
    lies."""
    student, teacher = random_affines(3, 4, 2, 8, seed=3), random_affines(3, 2, 10, 18, seed=4)
    maps = cell_places(teacher, 12, 12)[:, :, None].float()  # B Vt 1 H W 2
    found, mask = sample(
        maps, torch.ones(maps.shape[:-1], dtype=torch.bool), match(student, teacher, (3, 3))
    )
    coords, inside = match(student, teacher, (3, 3))
    assert torch.equal(mask[:, :, :, 0], inside) and mask.any()
    expected = cell_places(student, 3, 3)[:, :, None].expand(-1, -1, 2, -1, -1, -1)
    centred = inside & (coords.abs() <= 1 - 1 / 12).all(
        -1
    )  # nearer to the border the border cell goes on
    assert centred.sum() > 20
    torch.testing.assert_close(
        found[:, :, :, 0][centred], expected[centred].float(), atol=1e-4, rtol=0
    )
    cell = (
        teacher[..., :2].norm(dim=-2).amax(-1)[:, None, :, None, None] / 12
    )  # B 1 Vt 1 1, longest cell side
    off = (found[:, :, :, 0] - expected).norm(dim=-1)
    assert (off[inside] <= (cell.expand_as(off) * 0.75)[inside]).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_the_same_rectangle_shown_otherwise_gives_the_same_cells(flip, turns):
    maps, valid = random_maps(1, 1, 2, 5, 3, seed=5, holes=0.0)
    student, teacher = place(4, 2, 6, 8, flip, turns)[None, None], place(4, 2, 6, 8)[None, None]
    found, mask = sample(maps, valid, match(student, teacher, (5, 5)))
    shown = maps[0, 0].flip(2) if flip else maps[0, 0]
    torch.testing.assert_close(found[0, 0, 0], shown.rot90(turns, (1, 2)), atol=1e-5, rtol=1e-5)
    assert mask.all()


def test_sampling_equals_scipy():
    student, teacher = random_affines(2, 2, 2, 8, seed=6), random_affines(2, 2, 10, 18, seed=7)
    maps, valid = random_maps(2, 2, 3, 6, 4, seed=8, holes=0.0)
    places = match(student, teacher, (3, 3))
    coords, inside = places
    found, mask = sample(maps, valid, places)
    centres = (np.arange(6) + 0.5) / 6
    for b, s, t, f in np.ndindex(2, 2, 2, 3):
        interpolate = RegularGridInterpolator((centres, centres), maps[b, t, f].double().numpy())
        uv = ((coords[b, s, t] + 1) / 2).numpy().clip(centres[0], centres[-1])  # x y
        expected = np.where(inside[b, s, t][..., None], interpolate(uv[..., ::-1]), 0)
        np.testing.assert_allclose(found[b, s, t, f], expected, atol=1e-5)
        assert torch.equal(mask[b, s, t, f], inside[b, s, t])


def test_invalid_cells_have_no_say():
    student, teacher = random_affines(2, 3, 2, 8, seed=9), random_affines(2, 2, 10, 18, seed=10)
    maps, valid = random_maps(2, 2, 2, 6, 4, seed=11, holes=0.4)
    places = match(student, teacher, (3, 3))
    coords, inside = places
    expected_of_clean, _ = sample(maps, valid, places)
    maps = maps.where(valid[..., None], torch.nan)
    found, mask = sample(maps, valid, places)
    assert torch.equal(found, expected_of_clean)
    dropped = 0
    for b, s, t, f, i, j in np.ndindex(mask.shape):
        x, y = ((coords[b, s, t, i, j] + 1) / 2 * 6).tolist()
        total, weight = sample_by_loops(maps[b, t, f], valid[b, t, f], x, y)
        if abs(weight - 0.5) < 1e-4:
            continue
        assert bool(mask[b, s, t, f, i, j]) == (bool(inside[b, s, t, i, j]) and weight > 0.5)
        expected = total / weight if mask[b, s, t, f, i, j] else np.zeros(4)
        np.testing.assert_allclose(found[b, s, t, f, i, j], expected, atol=1e-4)
        dropped += bool(inside[b, s, t, i, j]) and weight < 0.5
    assert mask.any() and dropped


def test_a_border_is_inside_and_half_of_the_weight_is_enough():
    teacher = place(0, 0, 4, 4)[None, None]
    student = place(-2, 0, 4, 4)[
        None, None
    ]  # cell centres of a 1 x 1 grid lie on the teacher's left border
    places = match(student, teacher, (1, 1))
    coords, inside = places
    assert inside.all() and coords[0, 0, 0, 0, 0].tolist() == [-1.0, 0.0]
    maps = torch.arange(4.0).view(1, 1, 1, 2, 2, 1)
    valid = torch.tensor([[True, True], [False, False]]).view(1, 1, 1, 2, 2)
    # halfway between an invalid cell and a valid one
    found, mask = sample(maps, valid, places)
    assert mask.all() and found.item() == 0.0
    assert not sample(maps, ~valid & False, places)[1].any()


def test_bf16_maps_are_sampled_in_float32():
    maps, valid = random_maps(1, 1, 1, 4, 3, seed=12)
    places = match(
        random_affines(1, 2, 2, 8, seed=13), random_affines(1, 1, 18, 20, seed=14), (2, 2)
    )
    found, _ = sample(maps.bfloat16(), valid, places)
    assert found.dtype == torch.float32
    assert torch.equal(found, sample(maps.bfloat16().float(), valid, places)[0])
