"""Which samples make step k. Nothing here depends on ranks, workers or restarts."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from data.errors import InputError
from data.seeded import generator

CYCLE = 1024  # slots after which every dataset of a mixture has had its exact share


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture, as the order sees it."""

    count: int  # samples
    fingerprint: str
    weight: float = 1.0  # share of the slots, relative to the other parts


class SampleUse(NamedTuple):
    """A sample in one of its uses."""

    sample: int  # number through all datasets
    use: int  # how often the sample was drawn before, which is its dataset's epoch


class Order:
    """The endless list of samples, cut into batches.

    With one dataset it is one permutation after the other. With a mixture every ``CYCLE`` slots are
    dealt out by weight and shuffled, and each dataset goes through its own permutations.
    """

    def __init__(self, seed: int, parts: Sequence[Part], batch_size: int, *, origin: int = 0):
        """Prepare the list.

        Args:
            seed: of the run.
            parts: the datasets, whose samples are numbered one after the other.
            batch_size: global samples a step.
            origin: place in the list where step 0 would begin. It is not 0 in a run that went on
                with another batch size.

        Raises:
            InputError: there is nothing to order, or a weight gives no slot.
        """
        counts = [part.count for part in parts]
        if not counts or min(counts) < 1 or batch_size < 1:
            raise InputError(
                f"order: expected at least one sample a dataset and a positive batch size, "
                f"found {counts} samples and batch size {batch_size}"
            )
        self.seed = seed
        self.parts = tuple(parts)
        self.batch_size = batch_size
        self.origin = origin
        self._shares = _shares(parts)
        self._starts = list(accumulate(counts, initial=0))
        # two epochs of each, as a step may cross the border; 4 bytes a sample and epoch
        self._epoch = lru_cache(maxsize=2 * len(parts))(self._permutation)
        self._cycle = lru_cache(maxsize=2)(self._deal)

    def __reduce__(self):  # without the caches, which a worker process fills itself
        return partial(Order, origin=self.origin), (self.seed, self.parts, self.batch_size)

    def position(self, k: int) -> int:
        """Place in the list of the first sample of step k: how many the steps before it took."""
        return self.origin + k * self.batch_size

    def step(self, k: int) -> list[SampleUse]:
        """Global batch of step k, one entry a slot.

        A dataset smaller than its share of a batch gives a sample several times, each time with
        its own use.
        """
        return self._range(self.position(k), self.position(k + 1))

    def slice(self, k: int, *, rank: int, world_size: int) -> list[SampleUse]:
        """The contiguous part of step k that belongs to ``rank`` of ``world_size``.

        The slices joined in rank order are the step.

        Raises:
            InputError: the batch does not divide by the ranks.
        """
        first, size = self.share(rank=rank, world_size=world_size)
        start = self.position(k) + first
        return self._range(start, start + size)

    def share(self, *, rank: int, world_size: int) -> tuple[int, int]:
        """First slot and number of slots of a rank.

        Raises:
            InputError: the batch does not divide by the ranks.
        """
        if world_size < 1 or self.batch_size % world_size:
            raise InputError(
                f"global batch size {self.batch_size} does not divide by {world_size} ranks; "
                f"choose a multiple of the data-parallel world size"
            )
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} is outside the world of {world_size} ranks")
        size = self.batch_size // world_size
        return rank * size, size

    def substitutes(self, sample: int) -> range:
        """The samples of the same dataset, which can replace a sample that cannot be read."""
        part = bisect_right(self._starts, sample) - 1
        return range(self._starts[part], self._starts[part + 1])

    def _range(self, start: int, stop: int) -> list[SampleUse]:
        """Positions start..stop of the endless list."""
        if start < 0:
            raise InputError(f"order: expected a position from 0 on, found {start}")
        return [self._at(position) for position in range(start, stop)]

    def _at(self, position: int) -> SampleUse:
        """Sample and use of one position."""
        part, place = self._locate(position)
        use, row = divmod(place, self.parts[part].count)
        sample = self._starts[part] + int(self._epoch(part, use)[row])
        return SampleUse(sample, use)

    def _locate(self, position: int) -> tuple[int, int]:
        """The part at a position of the endless list, and the place in the part's own list."""
        if len(self.parts) == 1:
            return 0, position
        cycle, slot = divmod(position, CYCLE)
        parts, ranks = self._cycle(cycle)
        part = int(parts[slot])
        return part, cycle * self._shares[part] + int(ranks[slot])

    def _permutation(self, part: int, epoch: int) -> np.ndarray:
        """Order of one epoch of a dataset: (count,) uint32, each row once."""
        rows = np.arange(self.parts[part].count, dtype=np.uint32)
        return generator(self.seed, self.parts[part].fingerprint, epoch).permutation(rows)

    def _deal(self, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        """The part of each slot of a cycle, and the slot's rank among those of its part.

        Returns:
            Two arrays (CYCLE,).
        """
        names = [part.fingerprint for part in self.parts]
        dealt = np.repeat(np.arange(len(names)), self._shares)  # CYCLE
        parts = generator(self.seed, "mixture", *names, cycle).permutation(dealt)
        ranks = np.empty(CYCLE, np.int64)
        for part, share in enumerate(self._shares):
            ranks[parts == part] = np.arange(share)
        return parts, ranks


def _shares(parts: Sequence[Part]) -> list[int]:
    """Slots of each part in a cycle, rounded by largest remainders.

    Raises:
        InputError: a weight is not positive or gives no slot.
    """
    weights = [part.weight for part in parts]
    if not all(weight > 0 for weight in weights):
        raise InputError(f"data.mixture: expected positive weights, found {weights}")
    total = sum(weights)
    exact = []
    shares = []
    for weight in weights:
        slots = weight / total * CYCLE
        exact.append(slots)
        shares.append(int(slots))
    by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: CYCLE - sum(shares)]:
        shares[i] += 1
    if min(shares) == 0:
        raise InputError(
            f"data.mixture: the weight {weights[shares.index(0)]} is less than 1/{CYCLE} of the "
            f"whole and would never be drawn; raise it or leave the dataset out"
        )
    return shares
