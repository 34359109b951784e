"""Random choices that follow from names and numbers alone, never from processes, workers or
restarts."""

import numpy as np

from data.hashing import new_hash


def generator(*parts) -> np.random.Generator:
    """A random generator that follows from ``parts`` (strings and integers) alone, on any machine.

    Philox keyed with BLAKE2b of the printed tuple; Python's own ``hash`` differs from process to
    process."""
    digest = new_hash(repr(parts).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
