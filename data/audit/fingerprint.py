"""Two short names of a sample: of its bytes (equal: the same files) and of its looks (near: the
same picture)."""

import numpy as np

from data.hashing import hash_64

LOW = 8  # frequencies an axis
BITS = LOW * LOW - 1


def content(members: dict) -> int:
    """63 bits from the size and CRC32C of every member of an index entry but the meta data, which
    name the sample."""
    parts = sorted(
        (field, member["size"], member["crc32c"])
        for field, member in members.items()
        if field != "meta"
    )
    return short(repr(parts))


def short(text: str) -> int:
    """63 bits of a text (BLAKE2b): they fit a signed integer."""
    return hash_64(text) >> 1


def looks(image: np.ndarray, valid: np.ndarray) -> int | None:
    """Perceptual hash of an image (H, W) with H, W >= 8 multiples of those of ``valid`` (h, w): the
    signs of its 63 lowest cosine frequencies against their median. None where there is nothing to
    see: fewer than half of the cells are valid, or all is flat. Invalid pixels count as the mean.
    """
    valid = np.kron(
        valid, np.ones((image.shape[0] // valid.shape[0], image.shape[1] // valid.shape[1]), bool)
    )
    if valid.mean() < 0.5 or min(image.shape) < LOW:
        return None
    mean = image[valid].mean(dtype=np.float64)
    centred = np.where(valid, image - mean, 0.0)
    if np.abs(centred).max() <= 1e-6 * max(abs(mean), 1.0):
        return None
    rows, columns = cosines(image.shape[0]), cosines(image.shape[1])
    found = (rows @ centred @ columns.T).ravel()[1:]  # without the mean
    return sum(1 << i for i, bit in enumerate(found > np.median(found)) if bit)


def cosines(size: int) -> np.ndarray:
    """The first 8 vectors of the orthonormal DCT-II: (8, size)."""
    waves = np.cos(
        np.pi * np.arange(LOW)[:, None] * (2 * np.arange(size) + 1) / (2 * size)
    ) * np.sqrt(2 / size)
    waves[0] /= np.sqrt(2)
    return waves


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of different bits of hashes (int64 arrays)."""
    return np.bitwise_count(np.bitwise_xor(a, b))
