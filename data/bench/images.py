"""How a high-resolution image is stored, and what its views cost to cut from it.

A candidate is a coder (JPEG, WebP, ...) and a layout: one image or a pyramid (full, half, quarter
size), whole or in tiles. A view is cut from the coarsest level that is not coarser than its output.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data.bench.coders import Coder
from data.stream.views import View
from data.tiles.modalities import HR_PIXELS

LEVELS = 3  # full, half and quarter size
Key = tuple[int, int, int]  # level, row and column of a separately coded image
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of a level


@dataclass(frozen=True)
class HrCodec:
    """A way to store the high-resolution image of a tile.

    Attributes:
        name: Name in the table.
        coder: Of the images.
        levels: Images kept: full, half, quarter size.
        reduced: Coder of the levels below full size, where it is another.
        tile: Pixels a side of separately coded squares; 0: each level is one image.
        scaled: One image, decoded straight to the level's size.
        means: Levels are means of pixels instead of antialiased resizes: nothing crosses the border
            of a cell.
        one_level: Cut all views from the finest level that any of them wants.
    """

    name: str
    coder: Coder
    levels: int = 1
    reduced: Coder | None = None
    tile: int = 0
    scaled: bool = False
    means: bool = False
    one_level: bool = False

    @property
    def available(self) -> bool:
        """Whether the coder's package is installed."""
        return self.coder.available

    @property
    def pip(self) -> str:
        """What pip calls the coder's package."""
        return self.coder.pip

    @property
    def lossless(self) -> bool:
        """Whether views equal those of the uncompressed tile, with no level in between."""
        return self.coder.lossless and self.levels == 1 and not self.scaled

    def encode(self, image: np.ndarray) -> dict[Key, bytes]:
        """Store a tile: S S 3 uint8 -> its coded images."""
        stored = {}
        for level in range(self.levels):
            plane = self._reduce(image, level)
            side = self.tile or len(plane)
            coder = self._coder(level)
            for y in range(0, len(plane), side):
                for x in range(0, len(plane), side):
                    square = np.ascontiguousarray(plane[y : y + side, x : x + side])
                    stored[level, y // side, x // side] = coder.encode(square)
        return stored

    def cut(
        self, stored: dict[Key, bytes], views: Sequence[tuple[View, int]], side: int
    ) -> tuple[list[Tensor], int]:
        """Cut views from a stored tile.

        Args:
            stored: What ``encode`` made.
            views: Each view with the pixels a side of its output.
            side: Pixels a side of the tile.

        Returns:
            3 out out uint8 for each view, and the bytes that were read.
        """
        levels = self._levels_of(views)
        planes = {}
        read: set[Key] = set()
        for level in sorted(set(levels)):
            boxes = []
            for (view, _), wanted in zip(views, levels):
                if wanted == level:
                    boxes.append(box(view, level))
            plane, keys = self._plane(stored, level, boxes, side=side >> level)
            planes[level] = plane
            read |= keys
        cut = []
        for (view, out), level in zip(views, levels):
            x0, y0, x1, y1 = box(view, level)
            crop = torch.from_numpy(planes[level])[y0:y1, x0:x1].permute(2, 0, 1)  # 3 h w
            resized = interpolate(crop[None], (out, out), mode="bicubic", antialias=True)
            cut.append(resized[0])  # 3 out out
        return cut, sum(len(stored[key]) for key in read)

    def _levels_of(self, views: Sequence[tuple[View, int]]) -> list[int]:
        """The level that each view is cut from."""
        count = self.levels
        if self.scaled:
            count = LEVELS
        levels = [level_of(view, out, count) for view, out in views]
        if self.one_level:
            return [min(levels)] * len(levels)
        return levels

    def _reduce(self, image: np.ndarray, level: int) -> np.ndarray:
        """The pixels of a level."""
        if level == 0:
            return image
        side = len(image) >> level
        if self.means:
            return block_means(image, side)
        return resize(image, side)

    def _plane(
        self, stored: dict[Key, bytes], level: int, boxes: Sequence[Box], *, side: int
    ) -> tuple[np.ndarray, set[Key]]:
        """The level's S S 3 pixels, filled in where a box lies, and what was decoded for them."""
        kept = level
        reduction = 0
        if self.scaled:
            kept = 0
            reduction = level
        coder = self._coder(kept)
        if not self.tile:
            key = (kept, 0, 0)
            return coder.decode(stored[key], reduction), {key}
        plane = np.empty((side, side, 3), np.uint8)
        keys = set()
        for row, column in touched(boxes, self.tile):
            key = (kept, row, column)
            keys.add(key)
            square = coder.decode(stored[key], reduction)
            y = row * self.tile
            x = column * self.tile
            plane[y : y + len(square), x : x + square.shape[1]] = square
        return plane, keys

    def _coder(self, level: int) -> Coder:
        """The coder of a level."""
        if level > 0 and self.reduced is not None:
            return self.reduced
        return self.coder


def level_of(view: View, out: int, levels: int = LEVELS) -> int:
    """The coarsest of the first ``levels`` with at least ``out`` pixels along the view's sides."""
    pixels = min(view.w, view.h) * HR_PIXELS
    level = math.floor(math.log2(pixels / out))
    return min(levels - 1, max(0, level))


def box(view: View, level: int) -> Box:
    """A view in pixels of a level."""
    p = HR_PIXELS >> level
    return view.x0 * p, view.y0 * p, (view.x0 + view.w) * p, (view.y0 + view.h) * p


def touched(boxes: Sequence[Box], tile: int) -> set[tuple[int, int]]:
    """(row, column) of the tiles that any box overlaps."""
    places = set()
    for x0, y0, x1, y1 in boxes:
        for row in range(y0 // tile, -(-y1 // tile)):
            for column in range(x0 // tile, -(-x1 // tile)):
                places.add((row, column))
    return places


def resize(image: np.ndarray, side: int) -> np.ndarray:
    """Antialiased bicubic resize of S S 3 uint8 to side side 3."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None]  # 1 3 S S
    resized = interpolate(x, (side, side), mode="bicubic", antialias=True)[0]  # 3 side side
    return resized.permute(1, 2, 0).contiguous().numpy()


def block_means(image: np.ndarray, side: int) -> np.ndarray:
    """Means of whole blocks of pixels: S S 3 uint8 to side side 3."""
    block = len(image) // side
    blocks = image.reshape(side, block, side, block, 3)  # side b side b 3
    sums = blocks.sum((1, 3), dtype=np.uint32)  # side side 3
    return ((sums + block**2 // 2) // block**2).astype(np.uint8)
