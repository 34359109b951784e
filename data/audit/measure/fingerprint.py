"""Two short hashes of a sample.

Equal hashes of the bytes mean the same files, similar hashes of the picture mean the same look.
"""

from collections.abc import Mapping

import numpy as np

from data.audit.measure.masked_image import enlarge
from data.hashing import hash_64
from data.shards.records import Member

FREQUENCIES = 8  # along an axis
BITS = FREQUENCIES * FREQUENCIES - 1
LEAST_VALID = 0.5  # share of the cells
LEAST_CONTRAST = 1e-6  # of the mean; an image with less is flat


def content_hash(members: Mapping[str, Member]) -> int:
    """Hash what the members of a sample hold.

    Args:
        members: the members of an index entry. The meta data are left out, since they name the
            sample.

    Returns:
        63 bits that follow from the size and CRC32C of every member.
    """
    parts = []
    for field, member in sorted(members.items()):
        if field != "meta":
            parts.append((field, member.size, member.crc32c))
    return text_hash(repr(parts))


def text_hash(text: str) -> int:
    """63 bits of a text's BLAKE2b hash, which fit a signed integer."""
    return hash_64(text) >> 1


def picture_hash(image: np.ndarray, valid: np.ndarray) -> int | None:
    """Perceptual hash of an image: similar pictures differ in few bits.

    The bits are the signs of the 63 lowest cosine frequencies against their median. Invalid pixels
    count as the mean.

    Args:
        image: (H, W), each a multiple of the sides of ``valid``.
        valid: (h, w) bool.

    Returns:
        63 bits, or None where nothing is to be seen: fewer than half of the cells are valid, the
        image has fewer than 8 pixels a side, or it is flat.
    """
    valid = enlarge(valid, image.shape)
    if valid.mean() < LEAST_VALID or min(image.shape) < FREQUENCIES:
        return None
    mean = image[valid].mean(dtype=np.float64)
    centred = np.where(valid, image - mean, 0.0)
    if np.abs(centred).max() <= LEAST_CONTRAST * max(abs(mean), 1.0):
        return None
    rows = cosines(image.shape[0])
    columns = cosines(image.shape[1])
    spectrum = (rows @ centred @ columns.T).ravel()[1:]  # without the mean
    above = np.flatnonzero(spectrum > np.median(spectrum))
    return sum(1 << position for position in above.tolist())


def cosines(size: int) -> np.ndarray:
    """The first 8 vectors of the orthonormal DCT-II: (8, size)."""
    frequency = np.arange(FREQUENCIES)[:, None]
    angle = np.pi * frequency * (2 * np.arange(size) + 1) / (2 * size)
    waves = np.cos(angle) * np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    return waves


def hamming_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of bits in which hashes (int64) differ."""
    return np.bitwise_count(np.bitwise_xor(a, b))
