"""Random choices that follow from names and numbers alone, never from processes, workers or
restarts."""

import hashlib

import numpy as np


def generator(*parts) -> np.random.Generator:
    """A random generator that follows from ``parts`` (strings and integers) alone, on any machine.

    Philox keyed with BLAKE2b of the printed tuple; Python's own ``hash`` differs from process to
    process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
