"""Colours of the classes that one picture shows, as far apart as there is room for.

A table of a hundred classes has no hundred colours that the eye tells apart, but a picture shows
few of them. So the colours belong to the picture: its classes, in ascending order, take the first
colours of one fixed list. Each colour of the list is the one farthest from white and from all
before it, in OKLab, where equal distances look equally different (Ottosson, A perceptual color
space for image processing, 2020).
"""

from collections.abc import Iterable
from functools import cache

import numpy as np

LEVELS = 16  # of red, green and blue among the candidates
# Lightness of the candidates: lighter ones drown in white paper, darker ones look alike.
LIGHTNESS = (0.3, 0.9)
WHITE = (1.0, 1.0, 1.0)  # unlabelled pixels
GAMMA_END = 0.04045  # sRGB is linear below
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

Colour = tuple[float, float, float]  # red, green, blue in 0..1


def class_colours(classes: Iterable[int]) -> dict[int, Colour]:
    """A colour for each of the classes of a picture; equal classes get equal colours."""
    present = sorted(set(classes))
    return dict(zip(present, distinct_colours(len(present))))


@cache
def distinct_colours(number: int) -> list[Colour]:
    """The first colours of the list, each the farthest from white and from those before it."""
    levels = np.linspace(0, 1, LEVELS)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    places = oklab(candidates)
    darkest, lightest = LIGHTNESS
    kept = (places[:, 0] > darkest) & (places[:, 0] < lightest)
    candidates = candidates[kept]
    places = places[kept]
    distances = np.linalg.norm(places - oklab(np.array(WHITE)), axis=1)
    chosen = []
    for _ in range(number):
        farthest = int(distances.argmax())
        red, green, blue = candidates[farthest].tolist()
        chosen.append((red, green, blue))
        to_chosen = np.linalg.norm(places - places[farthest], axis=1)
        distances = np.minimum(distances, to_chosen)
    return chosen


def oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB colours (..., 3) in 0..1 as lightness, green to red, and blue to yellow: (..., 3)."""
    linear = np.where(colours <= GAMMA_END, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_CONES.T) @ TO_LAB.T
