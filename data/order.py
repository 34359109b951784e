"""Which samples make step k, and where random choices come from. Nothing here depends on ranks, workers or restarts."""

import hashlib
from functools import lru_cache

import numpy as np

from data.errors import InputError


def generator(*parts) -> np.random.Generator:
    """A random generator that follows from ``parts`` (strings and integers) alone, on any machine.

    Philox keyed with BLAKE2b of the printed tuple; Python's own ``hash`` differs from process to process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


class Order:
    """The endless list of samples: one permutation of the dataset after the other, cut into batches.

    seed: of the run; count: samples in the dataset; fingerprint: of the dataset; batch_size: global samples a step.
    """

    def __init__(self, seed: int, count: int, fingerprint: str, batch_size: int):
        if count < 1 or batch_size < 1:
            raise InputError(f"order: expected at least one sample and a positive batch size, "
                             f"found {count} samples and batch size {batch_size}")
        self.seed, self.count, self.fingerprint, self.batch_size = seed, count, fingerprint, batch_size
        # two epochs: a step may lie across the border; 4 bytes a sample and epoch
        self._epoch = lru_cache(maxsize=2)(self._permutation)

    def __reduce__(self):  # the cache stays behind when a worker process is spawned
        return Order, (self.seed, self.count, self.fingerprint, self.batch_size)

    def step(self, k: int) -> list[tuple[int, int]]:
        """Global batch of step k: (sample index, use) a slot. ``use`` counts how often the sample was drawn before,
        which is the epoch; a dataset smaller than a batch gives a sample several times, each with its own use."""
        return self._range(k * self.batch_size, (k + 1) * self.batch_size)

    def slice(self, k: int, rank: int, world: int) -> list[tuple[int, int]]:
        """The contiguous part of step k that belongs to ``rank`` of ``world``; joined in rank order they are the step.

        Raises InputError when the batch does not divide by the ranks."""
        first, size = self.share(rank, world)
        start = k * self.batch_size + first
        return self._range(start, start + size)

    def share(self, rank: int, world: int) -> tuple[int, int]:
        """First slot and number of slots of a rank. Raises InputError when the batch does not divide by the ranks."""
        if world < 1 or self.batch_size % world:
            raise InputError(f"global batch size {self.batch_size} does not divide by {world} ranks; "
                             f"choose a multiple of the data-parallel world size")
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} is outside the world of {world} ranks")
        size = self.batch_size // world
        return rank * size, size

    def _range(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Positions start..stop of the endless list."""
        if start < 0:
            raise InputError(f"step numbers start at 0, found position {start}")
        return [(int(self._epoch(p // self.count)[p % self.count]), p // self.count) for p in range(start, stop)]

    def _permutation(self, epoch: int) -> np.ndarray:
        """Order of one epoch: (count,) uint32, each index once."""
        indices = np.arange(self.count, dtype=np.uint32)
        return generator(self.seed, self.fingerprint, epoch).permutation(indices)
