"""The shift between high resolution and Sentinel-2: known shifts come back, nothing is made up."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from data.audit.measure.masked_image import MaskedImage
from data.audit.measure.registration import (
    LEAST_CELLS,
    judge,
    masked_correlation,
    parabola,
    register,
)
from data.audit.measure.shared_shift import LEAST_TILES, Pool
from data.shards.dataset import ShardDataset
from data.stream.decode import decode
from data.tiles.modalities import HR_PIXELS

BORDER = 5  # cells around a tile from which a shift moves pixels in


def texture(
    rng: np.random.Generator, cells: int, detail: float, pixels: int = HR_PIXELS
) -> np.ndarray:
    """Smooth noise (P N, P N); ``detail``: its scale in cells."""
    small = max(
        1, round(detail * pixels / 4)
    )  # drawn coarsely, then enlarged: quicker than a wide filter
    side = cells * pixels
    noise = gaussian_filter(rng.normal(size=(side // small + 8,) * 2), detail * pixels / small)
    grid = np.arange(side) / small + 4
    return map_coordinates(noise, np.meshgrid(grid, grid, indexing="ij"), order=1)


def displaced(rng: np.random.Generator, cells: int, detail: float, down: int, right: int):
    """The same ground twice: high resolution moved by whole pixels, and 10 m means with another
    gain and noise."""
    ground = texture(rng, cells + 2 * BORDER, detail)
    edge = BORDER * HR_PIXELS
    side = cells * HR_PIXELS
    fine = ground[edge - down : edge - down + side, edge - right : edge - right + side]
    true = ground[edge : edge + side, edge : edge + side]
    coarse = true.reshape(cells, HR_PIXELS, cells, HR_PIXELS).mean((1, 3))
    return fine, 900 + 400 * (coarse + 0.2 * coarse.std() * rng.normal(size=coarse.shape))


@pytest.mark.parametrize(
    "down, right", [(0, 0), (7, -3), (-40, 21), (64, 64), (11, -90), (-100, 0)]
)
@pytest.mark.parametrize("detail, cloud", [(0.6, 0.0), (1.5, 0.0), (0.8, 0.3)])
def test_a_known_shift_is_found(down, right, detail, cloud):
    cells = 32
    rng = np.random.default_rng([down + 200, right + 200])
    fine, coarse = displaced(rng, cells, detail, down, right)
    valid = gaussian_filter(rng.normal(size=(cells, cells)), 3)
    valid = valid >= np.quantile(valid, cloud)
    coarse = np.where(valid, coarse, 9000)  # a bright cloud
    found = register(MaskedImage(fine, np.ones_like(valid)), MaskedImage(coarse, valid))
    assert found.shift is not None, found
    assert np.abs(np.array(found.shift) * HR_PIXELS - (down, right)).max() < 0.3 * HR_PIXELS, found
    assert found.best_correlation >= found.stored_correlation and found.distance == pytest.approx(
        np.hypot(*found.shift)
    )


def test_invalid_high_resolution_has_no_say():
    rng = np.random.default_rng(1)
    fine, coarse = displaced(rng, 32, 0.8, 32, 0)
    valid = np.ones((32, 32), bool)
    valid[:, :9] = False
    reference = MaskedImage(coarse, np.ones_like(valid))
    expected = register(MaskedImage(fine, valid), reference)
    changed = np.where(np.kron(valid, np.ones((HR_PIXELS, HR_PIXELS), bool)), fine, 1e3)
    found = register(MaskedImage(changed, valid), reference)
    np.testing.assert_allclose(found.shift, expected.shift, atol=1e-6)
    assert abs(found.shift[0] - 1) < 0.3


def test_correlations_are_pearsons_over_the_pixels_valid_in_both():
    rng = np.random.default_rng(2)
    reach = 3
    side = 12
    a, b = rng.normal(5, 2, (2, side, side))
    a_valid, b_valid = rng.random((2, side, side)) > 0.3
    surface, count = masked_correlation(MaskedImage(a, a_valid), MaskedImage(b, b_valid), reach)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            pairs = [
                (a[y + down, x + right], b[y, x])
                for y in range(side)
                for x in range(side)
                if 0 <= y + down < side
                and 0 <= x + right < side
                and a_valid[y + down, x + right]
                and b_valid[y, x]
            ]
            assert count[down + reach, right + reach] == len(pairs)
            np.testing.assert_allclose(
                surface[down + reach, right + reach],
                np.corrcoef(np.transpose(pairs))[0, 1],
                atol=1e-9,
            )


@pytest.mark.parametrize("detail", [0.25, 1.0, 2.0])
def test_unrelated_textures_give_no_answer(detail):
    """False answers on pairs of different ground; docs/audit.md has the rates of more sizes."""
    rng = np.random.default_rng(3)
    cells = LEAST_CELLS
    trials = 100
    whole = np.ones((cells, cells), bool)
    answered = 0
    for _ in range(trials):
        fine = texture(rng, cells, detail, pixels=8)
        coarse = texture(rng, cells, detail, pixels=8).reshape(cells, 8, cells, 8).mean((1, 3))
        answered += register(MaskedImage(fine, whole), MaskedImage(coarse, whole)).shift is not None
    print(f"unrelated textures of {detail} cells: {answered} of {trials} answered")
    assert answered <= 0.02 * trials


@pytest.mark.parametrize(
    "cells, fine, words",
    [
        (6, "same", "6 x 6 cells, fewer than 24"),
        (32, "flat", "no texture"),
        (32, "hidden", "too few cells"),
        (32, "far", "greatest shift|below|less than"),
    ],
)
def test_what_cannot_be_judged_says_why(cells, fine, words):
    rng = np.random.default_rng(4)
    image, coarse = displaced(rng, cells, 0.8, 4 * HR_PIXELS if fine == "far" else 0, 0)
    valid = np.ones((cells, cells), bool)
    if fine == "flat":
        image = np.full_like(image, 7.0)
    if fine == "hidden":
        valid[3:] = False
    whole = np.ones((cells, cells), bool)
    found = register(MaskedImage(image, valid), MaskedImage(coarse, whole))
    assert found.shift is None and found.distance is None
    assert any(part in found.reason for part in words.split("|")), found


def test_two_peaks_are_not_one():
    """A ground that repeats itself, such as an orchard, fits at several shifts."""
    cells = 32
    grid = np.arange(cells * HR_PIXELS) / HR_PIXELS
    stripes = np.sin(2 * np.pi * grid / 3)[:, None] + np.sin(2 * np.pi * grid / 3)[None]
    coarse = stripes.reshape(cells, HR_PIXELS, cells, HR_PIXELS).mean((1, 3))
    whole = np.ones((cells, cells), bool)
    found = register(MaskedImage(stripes, whole), MaskedImage(coarse, whole))
    assert (
        found.shift is None
        and "above the correlations elsewhere" in found.reason
        and found.best_correlation > 0.9
    )


@pytest.mark.parametrize("down, right", [(0, 0), (32, -16)])
def test_small_tiles_share_a_shift(down, right):
    """Alone a tile of 6 x 6 cells under strong noise says nothing."""
    rng = np.random.default_rng(6)
    whole = np.ones((6, 6), bool)
    pool = Pool()
    parts = [Pool(), Pool()]
    for number in range(100):
        fine, coarse = displaced(rng, 6, 0.8, down, right)
        coarse = coarse + 2 * coarse.std() * rng.normal(size=coarse.shape)
        pair = (MaskedImage(fine, whole), MaskedImage(coarse, whole))
        pool.add(*pair)
        parts[number % 2].add(*pair)
    found = pool.judge()
    np.testing.assert_allclose(
        np.array(found.shift) * HR_PIXELS, (down, right), atol=0.3 * HR_PIXELS
    )
    parts[0].merge(parts[1])
    assert parts[0].tiles == 100
    np.testing.assert_allclose(parts[0].judge().shift, found.shift, atol=1e-9)


def test_small_tiles_of_other_ground_share_nothing():
    rng = np.random.default_rng(7)
    whole = np.ones((6, 6), bool)
    answered = 0
    trials = 30
    for _ in range(trials):
        pool = Pool()
        for _ in range(LEAST_TILES):
            fine, other = (texture(rng, 6, 1.0, pixels=8) for _ in range(2))
            coarse = other.reshape(6, 8, 6, 8).mean((1, 3))
            pool.add(MaskedImage(fine, whole), MaskedImage(coarse, whole))
        answered += pool.judge().shift is not None
    print(f"pools of {LEAST_TILES} unrelated tiles: {answered} of {trials} answered")
    assert answered <= 0.02 * trials
    assert Pool().judge().reason == f"fewer than {LEAST_TILES} tiles"


def test_the_top_of_a_parabola():
    for top in (-0.4, 0.0, 0.3):
        assert parabola(1 - (np.array([-1, 0, 1]) - top) ** 2) == pytest.approx(top)
    assert parabola([np.nan, 1, 0]) == 0
    surface = np.fromfunction(
        lambda y, x: np.exp(-((y - 20.3) ** 2 + (x - 14.6) ** 2) / 18), (33, 33)
    )
    np.testing.assert_allclose(judge(surface).shift, ((20.3 - 16) / 4, (14.6 - 16) / 4), atol=0.02)


@pytest.mark.slow
def test_real_days_of_sentinel_2(shards):
    """One day, enlarged, stands for the high resolution of another day. The days themselves lie up
    to a cell apart, so that the shift put in must come back as a difference."""
    bright, valid, clear = flanders(shards)
    rng = np.random.default_rng(5)
    for cells in (24, 32, 48):
        answered = 0
        errors = []
        false = 0
        trials = 60
        for _ in range(trials):
            one, other = rng.choice(clear, 2, replace=False)
            corner = rng.integers(3, 64 - cells - 2, 2)
            window = (other, *(slice(at, at + cells) for at in corner))
            whole = np.ones((cells, cells), bool)
            shift = rng.uniform(-2.5, 2.5, 2)
            reference = MaskedImage(bright[window], valid[window])
            in_place = MaskedImage(enlarged(bright[one], cells, corner), whole)
            displaced_by = MaskedImage(enlarged(bright[one], cells, corner - shift), whole)
            still = register(in_place, reference)
            moved = register(displaced_by, reference)
            if still.shift and moved.shift:
                answered += 1
                errors.append(np.abs(np.array(moved.shift) - still.shift - shift).max())
            turned = np.rot90(
                enlarged(bright[one], cells, rng.integers(3, 64 - cells - 2, 2)), rng.integers(1, 4)
            )
            false += register(MaskedImage(turned, whole), reference).shift is not None
        print(
            f"{cells} cells: {answered} of {trials} pairs of days answered, error of the shift: "
            f"median {np.median(errors):.2f}, 95 % {np.percentile(errors, 95):.2f} cells; "
            f"other ground: {false} answered"
        )
        assert answered > trials / 3
        assert np.percentile(errors, 90) < 0.3
        assert false <= 0.02 * trials


@pytest.mark.slow
def test_real_days_agree_with_each_other(shards):
    """Every pair of days gives a shift; one position a day explains them all if the shifts are
    right."""
    bright, valid, clear = flanders(shards)
    whole = np.ones((64, 64), bool)
    days = clear[::4]
    equations = []
    shifts = []
    for i, one in enumerate(days):
        for j, other in enumerate(days[:i]):
            fine = MaskedImage(np.kron(bright[one], np.ones((4, 4))), whole)
            found = register(fine, MaskedImage(bright[other], valid[other]))
            if found.shift:
                equations.append(np.eye(len(days))[i] - np.eye(len(days))[j])
                shifts.append(found.shift)
    places = np.linalg.lstsq(np.array(equations), np.array(shifts))[0]  # days 2, their mean at 0
    errors = equations @ places - shifts
    print(
        f"{len(days)} days, {len(shifts)} pairs answered: "
        f"days off by {np.hypot(*places.T).max():.2f} cells at most, "
        f"unexplained {np.sqrt((errors**2).mean()):.2f} (root mean square)"
    )
    assert len(shifts) > 3 * len(days) and np.sqrt((errors**2).mean()) < 0.15


def flanders(shards) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Brightness (T, 64, 64) and validity of the largest bundled series, and the days without
    clouds."""
    dataset = ShardDataset.open(shards)
    sample = dataset.keys().index("flanders-00002806639B424A")
    found = decode(dataset, sample, {"ms": np.arange(len(dataset.entry(sample).dates["ms"]))})
    valid = found.valid["ms"].numpy()
    return (
        found.series["ms"].numpy()[:, :3].mean(1),
        valid,
        np.flatnonzero(valid.mean((1, 2)) > 0.98),
    )


def enlarged(image: np.ndarray, cells: int, corner: np.ndarray, pixels: int = 8) -> np.ndarray:
    """A window of an image with 8 pixels a cell, by cubic splines; ``corner`` in cells."""
    grid = [(np.arange(cells * pixels) + 0.5) / pixels - 0.5 + at for at in corner]
    return map_coordinates(image, np.meshgrid(*grid, indexing="ij"), order=3, mode="nearest")
