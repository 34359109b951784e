"""Small holes in a mask: dark ground that was taken for the black of no observation."""

import numpy as np
from rasterio.features import sieve

from data.prepare.place.grid import CELL

SPECK = 400  # pixels; a hole of as many is a real gap


def with_ground(valid: np.ndarray, raw: np.ndarray, *, area: float) -> np.ndarray:
    """The mask of a picture (1, H, W) without the holes that are smaller than a cell.

    Args:
        valid: bool (1, H, W).
        raw: its numbers (1, C, H, W), of which black or white is ground, and -9999 is not.
        area: of a pixel in square metres; NaN: unknown.
    """
    least = SPECK
    if np.isfinite(area):
        least = min(SPECK, int(CELL**2 / area))
    closed = fill_specks(valid[0], least=least)  # H W
    is_ground = (np.isfinite(raw) & (raw >= 0)).all(axis=1)  # 1 H W
    return valid | (closed & is_ground)


def fill_specks(opaque: np.ndarray, *, least: int = SPECK, beyond: bool = False) -> np.ndarray:
    """Close the holes of a mask (H, W) that have fewer than ``least`` pixels.

    Args:
        opaque: the mask.
        least: the pixels of a hole that stays.
        beyond: whether a hole at the edge ends there. If not, it may be part of a larger one, and
            stays.
    """
    if opaque.all() or least < 2:
        return opaque
    ring = np.pad(opaque, 1, constant_values=beyond)
    if not beyond:
        least = min(least, ring.size - opaque.size)  # so that the ring itself is not closed
    closed = sieve(ring.astype(np.uint8), least, connectivity=8)[1:-1, 1:-1]
    return closed.astype(bool) | opaque
