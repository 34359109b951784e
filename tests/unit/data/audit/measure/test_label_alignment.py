"""Where labels lie on an image: an image whose classes have colours of their own."""

import numpy as np
import pytest

from data.audit.measure.label_alignment import (
    ORIENTATIONS,
    class_weights,
    explained,
    explained_in_place,
    find_misfit,
    image_features,
    series_features,
    shows_details,
)

CELLS = 12


def scene(seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels (8N, 8N) of random fields, and an image (3, 32N, 32N) that shows them in noise."""
    rng = np.random.default_rng(seed)
    side = 8 * CELLS
    seeds = rng.uniform(0, side, (25, 2))
    rows, columns = np.indices((side, side))
    apart = (rows[..., None] - seeds[:, 0]) ** 2 + (columns[..., None] - seeds[:, 1]) ** 2
    field_class = rng.integers(0, classes, 25)
    labels = field_class[apart.argmin(-1)].astype(np.uint8)
    colours = rng.uniform(60, 200, (classes, 3))
    image = colours[labels].transpose(2, 0, 1).repeat(4, 1).repeat(4, 2)
    image += rng.normal(0, 25, image.shape)
    return labels, np.clip(image, 0, 255).astype(np.uint8)


ALL_VALID = np.ones((CELLS, CELLS), bool)


@pytest.mark.parametrize("seed", range(8))
def test_labels_in_place_are_left_alone(seed):
    labels, image = scene(seed)
    assert find_misfit(labels, image_features(image, ALL_VALID)) is None


@pytest.mark.parametrize("seed", range(8))
def test_labels_of_another_place_are_not_called_shifted(seed):
    labels, _ = scene(seed)
    _, image = scene(seed + 100)
    misfit = find_misfit(labels, image_features(image, ALL_VALID))
    assert misfit is None or misfit.best < 0.25


@pytest.mark.parametrize("down, right", [(12, 0), (-10, 10), (9, -14)])
def test_a_shift_is_found_and_named(down, right):
    labels, image = scene(1)
    moved = np.roll(labels, (down, right), (0, 1))
    misfit = find_misfit(moved, image_features(image, ALL_VALID))
    assert misfit is not None
    assert f"{down * 1.25:+.1f} m down and {right * 1.25:+.1f} m right" in misfit.words


@pytest.mark.parametrize("words", ORIENTATIONS)
def test_every_orientation_is_named(words):
    labels, image = scene(2)
    quarters, is_mirrored = ORIENTATIONS[words]
    turned = labels
    if is_mirrored:
        turned = turned[:, ::-1]
    turned = np.ascontiguousarray(np.rot90(turned, quarters))
    misfit = find_misfit(turned, image_features(image, ALL_VALID))
    assert misfit is not None
    assert misfit.words == words


def test_the_share_is_that_of_an_analysis_of_variance():
    """At shift zero it is the classic sum of squares between over the total, here in loops."""
    labels, image = scene(3)
    valid = np.random.default_rng(3).random((CELLS, CELLS)) > 0.2
    features = image_features(image, valid)
    between = 0.0
    total = 0.0
    for values in features.values:
        inside = values[features.valid]
        classes = labels[features.valid]
        total += ((inside - inside.mean()) ** 2).sum()
        for index in np.unique(classes):
            group = inside[classes == index]
            between += len(group) * (group.mean() - inside.mean()) ** 2
    weights = class_weights(labels, features)
    assert explained(weights, features, reach=3)[3, 3] == pytest.approx(between / total, rel=1e-6)
    assert explained_in_place(weights, features) == pytest.approx(between / total, rel=1e-6)


def test_a_single_class_is_compared_with_the_unlabelled():
    labels, image = scene(4, classes=2)
    one_class = np.where(labels == 1, 0, 255).astype(np.uint8)
    features = image_features(image, ALL_VALID)
    assert find_misfit(one_class, features) is None
    assert find_misfit(np.roll(one_class, 12, 0), features) is not None
    assert find_misfit(np.zeros_like(labels), features) is None


@pytest.mark.parametrize("shift", [0, 3])
def test_details_are_below_10_m_in_labels_and_image(shift):
    labels, image = scene(5)
    features = image_features(image, ALL_VALID)
    assert shows_details(labels, features)
    assert not shows_details(labels, series_features(image[:, ::32, ::32], ALL_VALID))
    cells = labels[::8, ::8].repeat(8, 0).repeat(8, 1)  # a map with pixels of 10 m
    assert not shows_details(np.roll(cells, (shift, -shift), (0, 1)), features)
    assert not shows_details(np.zeros_like(labels), features)
