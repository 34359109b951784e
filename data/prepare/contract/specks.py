"""Small holes in a mask: dark ground that was taken for the black of no observation."""

import numpy as np
from rasterio.features import sieve

SPECK = 400  # pixels; a hole of as many is a real gap


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
