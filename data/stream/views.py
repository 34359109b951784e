"""Geometry of the views: one rectangle of the tile, cut from every sensor and the labels.

Rectangles are whole cells of 10 m where a sensor has pixels of 10 m, and finer where none has.

A view is cut, resized to the sensor's own number of pixels, mirrored (left-right), then turned by
quarter turns (counter-clockwise).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data.stream.resize import bicubic, masked_bicubic
from data.stream.settings import ViewSettings
from data.tiles.modalities import HR_PIXELS, MODALITIES
from data.tiles.tile import LABEL_PIXELS

# Rectangles tried before a square is taken, as torchvision's RandomResizedCrop does.
ATTEMPTS = 10


@dataclass(frozen=True)
class View:
    """A rectangle of the tile, in whole steps (x to the right, y down), and how it is shown."""

    x0: int
    y0: int
    w: int
    h: int
    flip: bool = field(default=False, kw_only=True)  # left-right, before turning
    turns: int = field(default=0, kw_only=True)  # quarter turns, counter-clockwise, 0..3
    steps: int = field(default=1, kw_only=True)  # in the side of a 10 m cell

    def window(self, pixels: int) -> tuple[slice, slice]:
        """Rows and columns of the rectangle in an image with ``pixels`` pixels a cell.

        A rectangle of parts of cells needs an image in which they are whole pixels.
        """
        rows = slice(self.y0 * pixels // self.steps, (self.y0 + self.h) * pixels // self.steps)
        columns = slice(self.x0 * pixels // self.steps, (self.x0 + self.w) * pixels // self.steps)
        return rows, columns

    @property
    def cells(self) -> tuple[slice, slice]:
        """Rows and columns of the 10 m cells that the rectangle touches."""
        rows = slice(self.y0 // self.steps, math.ceil((self.y0 + self.h) / self.steps))
        columns = slice(self.x0 // self.steps, math.ceil((self.x0 + self.w) / self.steps))
        return rows, columns


def steps_in_cell(modalities: Iterable[str]) -> int:
    """How finely rectangles can be drawn, in steps a cell, so that they cut no pixel.

    Args:
        modalities: the sensors that are cut. With a sensor of 10 m pixels there is one step; ``hr``
            alone has 8, for the labels have 8 pixels a cell.
    """
    sides = [MODALITIES[modality].pixels for modality in modalities]
    return math.gcd(LABEL_PIXELS, *sides)


def draw_views(
    rng: np.random.Generator, cells: int, settings: ViewSettings, *, steps: int = 1
) -> dict[str, list[View]]:
    """Rectangles of all views of a tile with ``cells`` cells a side, by view size.

    Area share and aspect are drawn as in DINO's multi-crop and rounded to whole steps (at least
    one); a cell has ``steps`` of them.
    """
    views = {}
    for name, size in settings.sizes.items():
        group = []
        for _ in range(size.count):
            group.append(_draw(rng, cells * steps, size.scale, settings, steps=steps))
        views[name] = group
    return views


def _draw(
    rng: np.random.Generator,
    side: int,
    scale: tuple[float, float],
    settings: ViewSettings,
    *,
    steps: int,
) -> View:
    """One view of a tile of ``side`` steps: area uniform in ``scale``, aspect log-uniform, place
    uniform."""
    w, h = _sides(rng, side, scale=scale, aspect=settings.aspect)
    x0 = int(rng.integers(side - w + 1))
    y0 = int(rng.integers(side - h + 1))
    flip = bool(rng.integers(2)) and settings.flips
    turns = int(rng.integers(4))  # drawn in any case, so that the switch changes nothing else
    if not settings.quarter_turns:
        turns = 0
    return View(x0, y0, w=w, h=h, flip=flip, turns=turns, steps=steps)


def _sides(
    rng: np.random.Generator,
    tile: int,
    *,
    scale: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int]:
    """Width and height in steps, of which the side of the tile has ``tile``.

    Rounding to whole steps can leave the ranges; such sides are drawn again. Otherwise views of a
    tile with few cells would be stretched to twice their width.
    """
    for _ in range(ATTEMPTS):
        side = math.sqrt(rng.uniform(*scale)) * tile
        log_aspect = rng.uniform(math.log(aspect[0]), math.log(aspect[1]))
        root = math.exp(log_aspect / 2)  # sqrt of width / height
        w = max(1, round(side * root))
        h = max(1, round(side / root))
        fits = max(w, h) <= tile
        area_fits = scale[0] <= w * h / tile**2 <= scale[1]
        if fits and area_fits and aspect[0] <= w / h <= aspect[1]:
            return w, h
    low = math.ceil(math.sqrt(scale[0]) * tile)
    high = math.floor(math.sqrt(scale[1]) * tile)
    square = max(1, min(max(round(side), low), high))
    return square, square


def affine(view: View) -> np.ndarray:
    """The map from a shown view to its tile: 2 x 3 float64.

    It takes (u, v, 1), coordinates of the shown view (u right, v down, in [0, 1]), to (x, y) in
    10 m cells of the tile. Cell (i, j) of an h x w grid has its centre at u = (j + .5) / w,
    v = (i + .5) / h.
    """
    place = np.array([[view.w, 0, view.x0], [0, view.h, view.y0], [0, 0, 1]], np.float64)
    mirror = np.eye(3)
    if view.flip:
        mirror = np.array([[-1, 0, 1], [0, 1, 0], [0, 0, 1]], np.float64)  # u -> 1 - u
    # the content at (u, v) was at (1 - v, u) before a quarter turn
    turn = np.array([[0, -1, 1], [1, 0, 0], [0, 0, 1]], np.float64)
    return (place / view.steps @ mirror @ np.linalg.matrix_power(turn, view.turns))[:2]


def hr_level(views: dict[str, list[View]], settings: ViewSettings, levels: int) -> int:
    """The reduction (1 / 2^level) of the high-resolution image to cut a sample's views from.

    It is the coarsest of ``levels`` in which every rectangle has at least as many pixels along both
    sides as its view shows, and a step is whole pixels. All views use one: to read and decode
    several costs more than it saves (docs/codecs.md).
    """
    shrinking = []  # whole pixels of the tile a pixel of the view, and a step
    for name, size in settings.sizes.items():
        for view in views[name]:
            step = HR_PIXELS // view.steps  # pixels
            shrinking.append(min(step, min(view.w, view.h) * step // size.pixels["hr"]))
    return max(0, min(levels, min(shrinking).bit_length()) - 1)


def cut_hr(image: Tensor, mask: Tensor, view: View, side: int) -> tuple[Tensor, Tensor]:
    """The high-resolution view, before colour changes.

    Args:
        image: 3 x pN x pN uint8 of the tile, p = 32 / 2^level pixels a cell (see ``hr_level``).
        mask: N x N bool.
        view: rectangle to cut.
        side: of the result in pixels.

    Returns:
        3 x side x side uint8, 0 where invalid, and side x side bool as of ``masked_bicubic``.
    """
    p = image.shape[-1] // mask.shape[-1]  # pixels a cell
    rows, columns = view.window(p)
    crop = image[:, rows, columns]  # 3 h w
    if mask[view.cells].all():  # the common case; torch has a fast uint8 kernel for it
        out = bicubic(crop[None], side)[0]  # 3 side side
        return orient(out, view), mask.new_ones(side, side)
    pixels = by_pixel(mask, p)[rows, columns]  # h w
    resized, valid = masked_bicubic((crop * pixels)[None].float(), pixels[None], side)
    out = resized[0].round().clamp(0, 255).to(torch.uint8)  # 3 side side
    return orient(out, view), orient(valid[0], view)


def cut_series(series: Tensor, mask: Tensor, view: View, side: int) -> tuple[Tensor, Tensor]:
    """A view of a series.

    Args:
        series: T C pN pN float32, p pixels a cell, 0 where invalid.
        mask: T N N bool.
        view: rectangle to cut.
        side: of the result in pixels.

    Returns:
        T C side side, 0 where invalid, and T side side bool as of ``masked_bicubic``.
    """
    p = series.shape[-1] // mask.shape[-1]  # pixels a cell
    rows, columns = view.window(p)
    pixels = by_pixel(mask, p)[:, rows, columns]  # T h w
    out, valid = masked_bicubic(series[:, :, rows, columns], pixels, side)
    return orient(out, view), orient(valid, view)


def by_pixel(mask: Tensor, pixels: int) -> Tensor:
    """A mask of cells, ... n n, as one of their pixels, ... pn pn."""
    if pixels == 1:
        return mask
    return mask.repeat_interleave(pixels, -2).repeat_interleave(pixels, -1)


def cut_labels(labels: Tensor, view: View, side: int) -> Tensor:
    """Nearest-neighbour view of the labels: 8N x 8N uint8 -> side x side uint8."""
    crop = labels[view.window(LABEL_PIXELS)]  # h w
    out = interpolate(crop[None, None], size=(side, side), mode="nearest-exact")[0, 0]  # side side
    return orient(out, view)


def orient(x: Tensor, view: View) -> Tensor:
    """Mirror, then turn, the last two axes (square) as the view says."""
    if view.flip:
        x = x.flip(-1)
    if view.turns:
        x = x.rot90(view.turns, (-2, -1))
    return x
