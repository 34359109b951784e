"""How Swin V2 cuts a grid into shifted windows, and the tables of their attention."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = -1  # region of the rows and columns behind the end of the grid


@dataclass(frozen=True)
class Windows:
    """The windows of one grid.

    A side of the grid that is shorter than the window becomes one window of that side, without
    shift.
    """

    side: tuple[int, int]  # rows and columns of a window
    shift: tuple[int, int]  # rows and columns that the windows are moved by
    count: tuple[int, int]  # windows down and across, after padding at the bottom and right

    @property
    def tokens(self) -> int:
        """Tokens of one window."""
        return math.prod(self.side)


def windows_of(height: int, width: int, *, window: int, shift: int) -> Windows:
    """Windows of a grid of ``height`` rows and ``width`` columns."""
    rows = min(height, window)
    columns = min(width, window)
    return Windows(
        side=(rows, columns),
        shift=(shift if height > window else 0, shift if width > window else 0),
        count=(math.ceil(height / rows), math.ceil(width / columns)),
    )


def to_windows(qkv: Tensor, cut: Windows) -> Tensor:
    """(images, h, w, 3, heads, d) -> (3, images, windows, heads, L, d)."""
    height, width = qkv.shape[1:3]
    rows = cut.count[0] * cut.side[0]
    columns = cut.count[1] * cut.side[1]
    if (rows, columns) != (height, width):
        qkv = F.pad(qkv, (0, 0, 0, 0, 0, 0, 0, columns - width, 0, rows - height))
    if any(cut.shift):
        qkv = qkv.roll((-cut.shift[0], -cut.shift[1]), (1, 2))
    qkv = qkv.unflatten(2, (cut.count[1], cut.side[1])).unflatten(1, (cut.count[0], cut.side[0]))
    # images down rows across columns 3 heads d
    return qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3)


def from_windows(x: Tensor, cut: Windows, *, height: int, width: int) -> Tensor:
    """(images, windows, heads, L, d) -> (images, hw, D)."""
    x = x.unflatten(3, cut.side).unflatten(1, cut.count)  # images down across heads rows columns d
    x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)  # images h w D
    if any(cut.shift):
        x = x.roll(cut.shift, (1, 2))
    return x[:, :height, :width].flatten(1, 2)  # images hw D


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # the cached tensor must also serve training
def log_coordinates(window: int, device: torch.device) -> Tensor:
    """Log-spaced relative positions in a window (Swin V2, equation 4): ((2w-1)^2, 2) float64."""
    offset = torch.arange(1 - window, window, dtype=torch.float64, device="cpu")  # 2w-1
    offset = offset / max(window - 1, 1) * 8
    offset = offset.sign() * (offset.abs() + 1).log2() / 3  # log2(8) = 3
    return torch.cartesian_prod(offset, offset).to(device)  # (2w-1)^2 2


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def window_tables(
    height: int, width: int, *, window: int, shift: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """The tables of attention inside the windows of one grid.

    Returns:
        The index (L, L) of each pair of tokens in the bias table, and the mask (windows, L, L)
        bool. The mask is True where the query may attend to the key: both lie in the same window of
        the unrolled grid, and the key is no padding. None if that holds everywhere. Queries that
        are padding attend to anything; their result is cut off.
    """
    cut = windows_of(height, width, window=window, shift=shift)
    index = _bias_index(cut, window).to(device)
    mask = _attention_mask(cut, height=height, width=width)
    if mask.all():
        return index, None
    return index, mask.to(device)


def _bias_index(cut: Windows, window: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, (L, L)."""
    rows, columns = cut.side
    place = torch.cartesian_prod(
        torch.arange(rows, device="cpu"), torch.arange(columns, device="cpu")
    )  # L 2
    relative = place[:, None] - place[None] + window - 1  # L L 2
    return relative[..., 0] * (2 * window - 1) + relative[..., 1]  # L L


def _attention_mask(cut: Windows, *, height: int, width: int) -> Tensor:
    """The mask of ``window_tables``, (windows, L, L)."""
    down = _regions(height, side=cut.side[0], shift=cut.shift[0], count=cut.count[0])
    across = _regions(width, side=cut.side[1], shift=cut.shift[1], count=cut.count[1])
    shape = (cut.count[0], cut.count[1], cut.side[0], cut.side[1])
    down = down[:, None, :, None].expand(shape)  # down across rows columns
    across = across[None, :, None, :].expand(shape)  # down across rows columns
    padding = ((down == PADDING) | (across == PADDING)).reshape(-1, cut.tokens)  # windows L
    region = (2 * down + across).reshape(-1, cut.tokens)  # windows L
    same_region = region[:, :, None] == region[:, None]  # windows L L
    return same_region & ~padding[:, None] | padding[:, :, None]  # windows L L


def _regions(size: int, *, side: int, shift: int, count: int) -> Tensor:
    """Region of each row (or column) of the rolled grid, (count, side).

    It is 0 for those that were next to each other before the roll, 1 for those that came in from
    the far side, and PADDING behind the end of the grid.
    """
    source = (torch.arange(side * count, device="cpu") + shift) % (side * count)
    region = torch.where(source < shift, 1, 0).where(source < size, PADDING)
    return region.view(count, side)
