"""Views: geometry against images whose pixel values are their own place."""

import numpy as np
import pytest
import torch

from data.seeded import generator
from data.stream.settings import GLOBAL, LOCAL, ViewSettings
from data.stream.views import (
    View,
    affine,
    cut_hr,
    cut_labels,
    cut_series,
    draw_views,
    hr_level,
)

DIHEDRAL = [(flip, turns) for flip in (False, True) for turns in range(4)]
N = 16  # cells of the tile


def centres(h, w):
    """(u, v, 1) of every cell of an h x w grid: h w 3, float64."""
    v, u = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    return np.stack([u, v, np.ones_like(u)], -1)


def places(view, side):
    """Tile coordinates of every cell of the shown view by its affine: side side 2."""
    return centres(side, side) @ affine(view).T


@pytest.mark.parametrize("flip,turns", DIHEDRAL)
def test_affine_says_where_series_pixels_come_from(flip, turns):
    ramp = (
        torch.from_numpy(centres(N, N)[..., :2] * N).permute(2, 0, 1)[None].float()
    )  # 1 2 N N: value = (x, y)
    mask = torch.ones(1, N, N, dtype=torch.bool)
    # an antialiased bicubic kernel keeps a ramp to a few hundredths of a cell, except at the edges
    # of the cut
    for view, margin, error in (
        (View(5, 3, 8, 8, flip=flip, turns=turns), 0, 1e-5),
        (View(2, 4, 12, 8, flip=flip, turns=turns), 2, 0.05),
        (View(1, 0, 10, 16, flip=flip, turns=turns), 2, 0.05),
        (View(6, 6, 4, 4, flip=flip, turns=turns), 2, 0.05),
    ):
        cut, _ = cut_series(ramp, mask, view, 8)
        found = cut[0].permute(1, 2, 0).double().numpy()
        inner = slice(margin, 8 - margin)
        np.testing.assert_allclose(found[inner, inner], places(view, 8)[inner, inner], atol=error)


@pytest.mark.parametrize("flip,turns", DIHEDRAL)
def test_affine_says_where_labels_come_from(flip, turns):
    y, x = np.mgrid[: 8 * N, : 8 * N]
    labels = torch.from_numpy((y // 8 * N + x // 8).astype(np.uint8))  # value = cell number
    for view in (
        View(5, 3, 8, 8, flip=flip, turns=turns),
        View(2, 4, 12, 6, flip=flip, turns=turns),
        View(9, 1, 3, 4, flip=flip, turns=turns),
    ):
        x, y = np.floor(places(view, 64)).astype(int).transpose(2, 0, 1)
        assert (cut_labels(labels, view, 64).numpy() == y * N + x).all()


@pytest.mark.parametrize("flip,turns", DIHEDRAL)
def test_affine_says_where_hr_pixels_come_from(flip, turns):
    y, x = np.mgrid[: 32 * N, : 32 * N]
    image = torch.from_numpy(np.stack([x // 4, y // 4, 0 * x]).astype(np.uint8))  # 1/8 cells
    mask = torch.ones(N, N, dtype=torch.bool)
    view = View(5, 3, 8, 8, flip=flip, turns=turns)
    cut, _ = cut_hr(image, mask, view, 256)
    expected = np.floor(places(view, 256) * 8)
    assert (cut[:2].permute(1, 2, 0).numpy() == expected).all()
    view = View(2, 4, 12, 8, flip=flip, turns=turns)
    cut, _ = cut_hr(image, mask, view, 256)
    np.testing.assert_allclose(
        cut[:2].permute(1, 2, 0).numpy(), places(view, 256) * 8 - 0.5, atol=1.6
    )


def test_all_modalities_show_the_same_ground():
    rng = np.random.default_rng(0)
    field = rng.random((N, N)) > 0.5
    view = View(3, 2, 8, 8, flip=True, turns=3)
    ones = torch.ones(N, N, dtype=torch.bool)
    hr, _ = cut_hr(
        torch.from_numpy(np.kron(field, np.full((32, 32), 200)).astype(np.uint8))[None].expand(
            3, -1, -1
        ),
        ones,
        view,
        256,
    )
    series, _ = cut_series(torch.from_numpy(field).float()[None, None], ones[None], view, 8)
    labels = cut_labels(
        torch.from_numpy(np.kron(field, np.ones((8, 8))).astype(np.uint8)), view, 64
    )
    shown = series[0, 0] > 0.5
    assert (hr[0, 16::32, 16::32] == 200).eq(shown).all()
    assert labels[4::8, 4::8].bool().eq(shown).all()


def test_invalid_hr_cells_have_no_influence_and_become_zero():
    rng = np.random.default_rng(4)
    image = torch.from_numpy(rng.integers(1, 256, (3, 192, 192), dtype=np.uint8))
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[[1, 4, 5], [2, 4, 0]] = False
    pixels = mask.repeat_interleave(32, 0).repeat_interleave(32, 1)
    for view in (View(0, 0, 6, 6, flip=True, turns=2), View(1, 0, 4, 5, flip=False, turns=1)):
        clean, dirty = (
            cut_hr(image.masked_fill(~pixels, fill), mask, view, 100) for fill in (0, 255)
        )
        assert torch.equal(clean[0], dirty[0]) and torch.equal(clean[1], dirty[1])
        assert 0.5 < clean[1].float().mean() < 1
        assert (clean[0][:, ~clean[1]] == 0).all()


@pytest.mark.parametrize("flip,turns", DIHEDRAL)
def test_masks_turn_with_the_image(flip, turns):
    mask = torch.from_numpy(np.random.default_rng(5).random((N, N)) > 0.4)
    view = View(4, 5, 8, 8, flip=flip, turns=turns)

    def expected(side):
        x, y = np.floor(places(view, side)).astype(int).transpose(2, 0, 1)
        return mask.numpy()[y, x]

    shown = cut_series(torch.zeros(1, 1, N, N), mask[None], view, 8)[1][0]
    assert (shown.numpy() == expected(8)).all()
    image = torch.zeros(3, 32 * N, 32 * N, dtype=torch.uint8)
    assert (cut_hr(image, mask, view, 256)[1].numpy() == expected(256)).all()


@pytest.mark.parametrize("cells", [1, 2, 6, 10, 64])
def test_drawn_views_keep_the_settings(cells):
    settings = ViewSettings(local_views=3)
    seen = set()
    for seed in range(150):
        views = draw_views(generator(seed), cells, settings)
        assert [len(views[GLOBAL]), len(views[LOCAL])] == [2, 3]
        for name, scale in ((GLOBAL, settings.global_scale), (LOCAL, settings.local_scale)):
            for view in views[name]:
                seen.add((view.flip, view.turns))
                assert view.x0 >= 0 and view.y0 >= 0 and view.w >= 1 and view.h >= 1
                assert view.x0 + view.w <= cells and view.y0 + view.h <= cells
                if cells >= 6:  # fewer whole cells cannot meet every range
                    assert scale[0] <= view.w * view.h / cells**2 <= scale[1]
                    assert settings.aspect[0] <= view.w / view.h <= settings.aspect[1]
    assert seen == set(DIHEDRAL)


def test_large_tiles_use_the_whole_range():
    shares = []
    for seed in range(300):
        views = draw_views(generator(seed), 64, ViewSettings())
        shares += [view.w * view.h / 64**2 for view in views[GLOBAL]]
    counts, _ = np.histogram(shares, bins=4, range=(0.32, 1.0))
    assert counts.min() > 30  # of 600; long rectangles do not fit when the share is near 1


def test_flips_and_turns_can_be_switched_off():
    settings = ViewSettings(flips=False, quarter_turns=False)
    views = []
    for seed in range(20):
        for group in draw_views(generator(seed), 32, settings).values():
            views += group
    assert {(view.flip, view.turns) for view in views} == {(False, 0)}


def test_the_reduction_is_the_coarsest_that_no_view_magnifies():
    pixels = {GLOBAL: 384, LOCAL: 96}
    settings = ViewSettings(global_pixels={"hr": 384}, local_pixels={"hr": 96})
    for rng in map(np.random.default_rng, range(50)):
        views = draw_views(rng, 64, settings)
        level = hr_level(views, settings, 6)
        sides = []
        for name, side in pixels.items():
            sides += [32 * min(view.w, view.h) / side for view in views[name]]
        assert min(sides) >= 2**level or level == 0
        assert min(sides) < 2 ** (level + 1)
        assert [hr_level(views, settings, levels) for levels in (0, 1, 2)] == [0, 0, min(1, level)]
