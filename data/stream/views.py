"""Geometry of the views: one rectangle on the 10 m grid, cut from every modality and from the
labels alike.

A view is cut, resized to its fixed size, mirrored (left-right), then turned by quarter turns
(counter-clockwise).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data.stream.settings import ViewSettings
from data.tiles.tile import HR_PIXELS, LABEL_PIXELS

SMALL = 128  # pixels: up to here two matrix products resize faster than torch's kernel for float
ATTEMPTS = 10  # rectangles tried before a square is taken, as torchvision's RandomResizedCrop does


@dataclass(frozen=True)
class View:
    """A rectangle in whole 10 m cells of the tile (x to the right, y down) and how it is shown."""

    x0: int
    y0: int
    w: int
    h: int
    flip: bool = False  # left-right, before turning
    turns: int = 0  # quarter turns, counter-clockwise, 0..3


def draw_views(
    rng: np.random.Generator, cells: int, settings: ViewSettings
) -> dict[str, list[View]]:
    """Rectangles of all views of a tile with ``cells`` cells a side: {"global": [...], "local":
    [...]}.

    Area share and aspect are drawn as in DINO's multi-crop and rounded to whole cells (at least
    one)."""
    sizes = {
        "global": (settings.global_views, settings.global_scale),
        "local": (settings.local_views, settings.local_scale),
    }
    return {
        name: [_draw(rng, cells, scale, settings) for _ in range(count)]
        for name, (count, scale) in sizes.items()
    }


def _draw(
    rng: np.random.Generator, cells: int, scale: tuple[float, float], settings: ViewSettings
) -> View:
    """One view: area uniform in ``scale``, aspect log-uniform, place uniform."""
    w, h = _sides(rng, cells, scale, settings.aspect)
    x0, y0 = int(rng.integers(cells - w + 1)), int(rng.integers(cells - h + 1))
    flip, turns = bool(rng.integers(2)), int(rng.integers(4))
    return View(x0, y0, w, h, flip and settings.flips, turns if settings.quarter_turns else 0)


def _sides(
    rng: np.random.Generator, cells: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int]:
    """Width and height in cells. What rounding to whole cells pushes out of the ranges is drawn
    again: on a tile of few cells it would stretch views to twice their width."""
    for _ in range(ATTEMPTS):
        side = math.sqrt(rng.uniform(*scale)) * cells
        root = math.exp(
            rng.uniform(math.log(aspect[0]), math.log(aspect[1])) / 2
        )  # sqrt of width / height
        w, h = max(1, round(side * root)), max(1, round(side / root))
        if (
            max(w, h) <= cells
            and scale[0] <= w * h / cells**2 <= scale[1]
            and aspect[0] <= w / h <= aspect[1]
        ):
            return w, h
    low, high = math.ceil(math.sqrt(scale[0]) * cells), math.floor(math.sqrt(scale[1]) * cells)
    side = max(1, min(max(round(side), low), high))
    return side, side


def affine(view: View) -> np.ndarray:
    """2 x 3 float64 that maps (u, v, 1), normalised coordinates of the shown view (u right, v down,
    in [0, 1]), to (x, y) in 10 m cells of the tile. Cell (i, j) of an h x w grid has its centre at
    u = (j + .5) / w, v = (i + .5) / h.
    """
    place = np.array([[view.w, 0, view.x0], [0, view.h, view.y0], [0, 0, 1]], np.float64)
    mirror = (
        np.array([[-1, 0, 1], [0, 1, 0], [0, 0, 1]], np.float64) if view.flip else np.eye(3)
    )  # u -> 1 - u
    turn = np.array(
        [[0, -1, 1], [1, 0, 0], [0, 0, 1]], np.float64
    )  # what is shown at (u, v) stood at (1 - v, u)
    return (place @ mirror @ np.linalg.matrix_power(turn, view.turns))[:2]


def hr_level(views: dict[str, list[View]], settings: ViewSettings, levels: int) -> int:
    """Which reduction (1 / 2^level) of the high-resolution image a sample's views are cut from: the
    coarsest of ``levels`` in which every rectangle has at least as many pixels along both sides as
    its view shows.

    One for all views: several would be read and decoded for less than they cost (docs/codecs.md).
    """
    sizes = {"global": settings.global_cells, "local": settings.local_cells}
    shrinking = min(
        min(view.w, view.h) // sizes[name] for name, group in views.items() for view in group
    )
    return max(0, min(levels, shrinking.bit_length()) - 1)


def cut_hr(image: Tensor, mask: Tensor, view: View, cells: int) -> tuple[Tensor, Tensor]:
    """The high-resolution view, before colour changes.

    image: 3 x pN x pN uint8 of the tile, p = 32 / 2^level pixels a cell (see ``hr_level``);
    mask: N x N bool. Returns 3 x 32n x 32n uint8 (0 where invalid) and the n x n bool mask: a cell
    is valid when all its pixels are."""
    p, side = image.shape[-1] // mask.shape[-1], HR_PIXELS * cells
    crop = image[
        :, view.y0 * p : (view.y0 + view.h) * p, view.x0 * p : (view.x0 + view.w) * p
    ]  # 3 ph pw
    mask = mask[view.y0 : view.y0 + view.h, view.x0 : view.x0 + view.w]  # h w
    if mask.all():  # the common case; torch has a fast uint8 kernel for it
        out = _bicubic(crop[None], side)[0]  # 3 32n 32n
        return shown(out, view), torch.ones(cells, cells, dtype=torch.bool)
    pixels = mask.repeat_interleave(p, 0).repeat_interleave(p, 1)  # ph pw
    out, good = masked_bicubic((crop * pixels)[None].float(), pixels[None], side)
    good = good.view(cells, HR_PIXELS, cells, HR_PIXELS).all(3).all(1)  # n n
    pixels = good.repeat_interleave(HR_PIXELS, 0).repeat_interleave(HR_PIXELS, 1)  # 32n 32n
    out = (out[0].round().clamp(0, 255) * pixels).to(torch.uint8)  # 3 32n 32n
    return shown(out, view), shown(good, view)


def cut_series(series: Tensor, mask: Tensor, view: View, cells: int) -> tuple[Tensor, Tensor]:
    """A view of frames on the 10 m grid: T C N N float32, zero where invalid, and T N N bool -> T C
    n n (0 where invalid) and T n n bool."""
    rows, columns = slice(view.y0, view.y0 + view.h), slice(view.x0, view.x0 + view.w)
    out, good = masked_bicubic(series[:, :, rows, columns], mask[:, rows, columns], cells)
    return shown(out, view), shown(good, view)


def cut_labels(labels: Tensor, view: View, cells: int) -> Tensor:
    """Nearest-neighbour view of the labels: 8N x 8N uint8 -> 8n x 8n uint8."""
    p = LABEL_PIXELS
    crop = labels[
        view.y0 * p : (view.y0 + view.h) * p, view.x0 * p : (view.x0 + view.w) * p
    ]  # 8h 8w
    out = interpolate(crop[None, None], size=(p * cells, p * cells), mode="nearest-exact")[
        0, 0
    ]  # 8n 8n
    return shown(out, view)


def masked_bicubic(x: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Normalised convolution: resize(x) / resize(mask), so invalid pixels have no say in valid
    ones.

    x: T C h w float, zero where invalid; mask: T h w bool -> T C side side (0 where invalid) and T
    side side bool: resized mask >= 0.5."""
    out = _bicubic(x, side)  # T C side side
    if mask.all():
        return out, mask.new_ones(len(x), side, side)
    share = _bicubic(mask[:, None].to(x.dtype), side)  # T 1 side side
    good = share >= 0.5  # T 1 side side
    return out.div_(share).masked_fill_(~good, 0.0), good[:, 0]


def _bicubic(x: Tensor, side: int) -> Tensor:
    """Antialiased bicubic resize of T C h w to T C side side."""
    if (
        x.dtype == torch.uint8 or max(x.shape[-2:]) > SMALL
    ):  # torch has a fast kernel for uint8, none for float
        return interpolate(x, size=(side, side), mode="bicubic", antialias=True)
    rows, columns = (
        _weights(length, side).to(x.dtype) for length in x.shape[-2:]
    )  # h side, w side
    return rows.mT @ (x @ columns)


@lru_cache(maxsize=4 * SMALL)
def _weights(length: int, side: int) -> Tensor:
    """The resize of ``length`` pixels to ``side`` as a matrix (length side): torch's own, of every
    unit vector."""
    units = torch.eye(length, dtype=torch.float64)[None, None]  # 1 1 length length
    return interpolate(units, size=(length, side), mode="bicubic", antialias=True)[0, 0].float()


def shown(x: Tensor, view: View) -> Tensor:
    """Mirror, then turn, the last two axes (square) as the view says."""
    if view.flip:
        x = x.flip(-1)
    return x.rot90(view.turns, (-2, -1)) if view.turns else x
