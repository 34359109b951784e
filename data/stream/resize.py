"""Antialiased bicubic resizing of images with masks."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Pixels a side up to which two matrix products are faster than torch's resize of float images.
SMALL = 128


def masked_bicubic(x: Tensor, mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Normalised convolution, resize(x) / resize(mask): invalid pixels do not influence valid ones.

    Args:
        x: T C h w float, 0 where invalid.
        mask: T h w bool.
        side: of the result in pixels.

    Returns:
        T C side side, 0 where invalid, and T side side bool, True where the resized mask >= 0.5.
    """
    out = bicubic(x, side)  # T C side side
    if mask.all():
        return out, mask.new_ones(len(x), side, side)
    share = bicubic(mask[:, None].to(x.dtype), side)  # T 1 side side
    valid = share >= 0.5  # T 1 side side
    return out.div_(share).masked_fill_(~valid, 0.0), valid[:, 0]


def bicubic(x: Tensor, side: int) -> Tensor:
    """Antialiased bicubic resize of T C h w to T C side side."""
    height, width = x.shape[-2:]
    # torch has a fast kernel for uint8, and none for float
    if x.dtype == torch.uint8 or max(height, width) > SMALL:
        return interpolate(x, size=(side, side), mode="bicubic", antialias=True)
    rows = _weights(height, side).to(x.dtype)  # h side
    columns = _weights(width, side).to(x.dtype)  # w side
    return rows.mT @ (x @ columns)


@lru_cache(maxsize=4 * SMALL)
def _weights(length: int, side: int) -> Tensor:
    """The resize of ``length`` pixels to ``side`` pixels as a matrix (length, side).

    Its rows are torch's own resize of the unit vectors.
    """
    units = torch.eye(length, dtype=torch.float64)[None, None]  # 1 1 length length
    return interpolate(units, size=(length, side), mode="bicubic", antialias=True)[0, 0].float()
