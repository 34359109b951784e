"""The geo context in a step: which samples read it, and what a step says of the prototypes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from data.seeded import generator
from data.stream.sample import Batch
from models.features import Views

PREFIX = "context/"  # of the figures in the metrics file


@dataclass(frozen=True)
class ContextFigures:
    """How far the prototypes of a region differ: means over the samples that have a region.

    NaN if the global batch has none.
    """

    cosine: float  # mean cosine between two prototypes; 1: all point the same way
    rank: float  # effective number of directions in which they differ
    # Variance of the prototypes over that of the region's cells in the batch. About 0: the
    # prototypes fell together.
    spread: float

    @classmethod
    def of(cls, sums: Sequence[float]) -> "ContextFigures":
        """The figures of a ``PrototypeSpread`` that was added up over the ranks."""
        samples, cosine, rank, prototypes, cells = sums
        return cls(
            cosine=_ratio(cosine, samples),
            rank=_ratio(rank, samples),
            spread=_ratio(prototypes, cells),
        )


def drop_context(
    views: dict[str, Views], batch: Batch, *, share: float, seed: int
) -> dict[str, Views]:
    """The views as the student sees them: some samples do not read their region's prototypes.

    Who reads follows from (run seed, step, sample) alone. The samples that do not read still move
    the prototypes, for what they show of their region is as good.

    Args:
        views: Of ``to_views``, by view size.
        batch: This rank's slice.
        share: Probability that a sample does not read.
        seed: The run's.
    """
    reads = torch.tensor([_draw(seed, batch.step, key) >= share for key in batch.keys])  # B
    device = next(iter(views.values())).region.device
    reads = reads.to(device, non_blocking=True)  # B
    return {size: replace(inputs, reads_context=reads) for size, inputs in views.items()}


def _ratio(total: float, count: float) -> float:
    """A mean, NaN of nothing."""
    if count == 0:
        return math.nan
    return total / count


def _draw(seed: int, step: int, key: str) -> float:
    """A number in [0, 1) for one sample of a step."""
    return generator(seed, "geo context", step, key).random()
