"""Colours of classes: those of one picture can be told apart."""

from itertools import combinations

import matplotlib.colors
import numpy as np
import pytest

from data.pages.class_colours import class_colours, distinct_colours, oklab
from data.tiles.classes import NAMES

WHITE_XYZ = np.array([0.95047, 1.0, 1.08883])  # D65


def cielab(colour) -> np.ndarray:
    """sRGB -> CIELAB by the formulas of IEC 61966-2-1 and CIE 15: another space than the code's."""
    channels = []
    for value in colour:
        if value <= 0.04045:
            channels.append(value / 12.92)
        else:
            channels.append(((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    ratios = to_xyz @ np.array(channels) / WHITE_XYZ
    roots = [
        np.cbrt(ratio) if ratio > (6 / 29) ** 3 else ratio * (29 / 6) ** 2 / 3 + 4 / 29
        for ratio in ratios
    ]
    x, y, z = roots
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# A distance of 2.3 is just noticeable side by side (Mahy et al. 1994); patches apart need more.
@pytest.mark.parametrize("number, least", [(8, 40), (16, 25), (30, 15), (70, 8)])
def test_colours_are_apart_in_cielab(number, least):
    places = [cielab(colour) for colour in [(1, 1, 1), *distinct_colours(number)]]
    distances = [np.linalg.norm(a - b) for a, b in combinations(places, 2)]
    assert min(distances) > least


def test_every_picture_of_a_few_classes_has_distinct_colours():
    rng = np.random.default_rng(0)
    for _ in range(50):
        classes = rng.choice(len(NAMES), 12, replace=False).tolist()
        places = [oklab(np.array(colour)) for colour in class_colours(classes).values()]
        distances = [np.linalg.norm(a - b) for a, b in combinations(places, 2)]
        assert min(distances) > 0.2


def test_colours_follow_from_the_set_of_classes():
    assert class_colours([9, 3, 3, 40]) == class_colours([40, 9, 3])
    assert list(class_colours([9, 3, 40])) == [3, 9, 40]
    assert class_colours([]) == {}


def test_oklab_of_known_colours():
    """Values of the reference implementation (bottosson.github.io/posts/oklab)."""
    assert oklab(np.array([1.0, 1.0, 1.0])) == pytest.approx([1, 0, 0], abs=1e-3)
    red = oklab(np.array(matplotlib.colors.to_rgb("#ff0000")))
    assert red == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-4)
