"""Settings, statistics and running centre of the DINO loss; ``head_loss`` computes the loss."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.reducer import Reducer


@dataclass(frozen=True)
class DinoSpec:
    """Settings at one step of the DINO loss, which the paper calls the learning loss CL."""

    student_temperature: float = 0.1
    teacher_temperature: float = 0.07  # also the epsilon of Sinkhorn-Knopp
    iterations: int = 3  # of Sinkhorn-Knopp


class Statistics(NamedTuple):
    """How the teacher spreads its targets over the global batch; entropies in nats, up to log K."""

    entropy: Tensor  # mean entropy of a row: near log K the targets carry no information
    mean_entropy: Tensor  # entropy of the mean row: near 0 all rows fall on one prototype
    used: Tensor  # share of the prototypes that are the largest entry of some row
    rows: Tensor  # number of rows with targets


class Centre(nn.Module):
    """Running mean (K,) of the teacher's logits, float32.

    ``targets.head_targets`` reads it and returns the mean of the batch, which goes to ``update``
    once the step is applied. A skipped step must not update it.
    """

    value: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))

    @torch.no_grad()
    def update(self, mean: Tensor) -> None:
        """Move towards the mean logits (K,) of a batch."""
        self.value.lerp_(mean.to(self.value.dtype), 1 - self.momentum)


def share(total: Tensor, count: Tensor, reducer: Reducer) -> Tensor:
    """This rank's share of a global mean; zero if nothing is counted on any rank.

    The average of the shares over ranks is the global mean, as with ``Reducer.mean``.

    Args:
        total: () local sum.
        count: () local number of summands, or the sum of their weights.
        reducer: the sum over ranks.

    Returns:
        () local total x world size / global count.
    """
    counted = reducer.sum(count.detach().float())
    return total * reducer.world_size / counted.where(counted > 0, 1.0)
