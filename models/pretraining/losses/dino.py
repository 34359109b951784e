"""What the learning loss CL of all levels (DINO) is set by and says about itself; ``head_loss``
computes it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.reducer import Reducer


@dataclass(frozen=True)
class DinoSpec:
    """Settings of the loss at one step."""

    student_temperature: float = 0.1
    teacher_temperature: float = 0.07  # also the epsilon of Sinkhorn-Knopp
    iterations: int = 3  # of Sinkhorn-Knopp


class Statistics(NamedTuple):
    """How the teacher spreads its targets, over the global batch. Entropies in nats, at most log K."""

    entropy: Tensor  # mean entropy of a row: near log K, the teacher says nothing
    mean_entropy: Tensor  # entropy of the mean row: near 0, all rows fall on one prototype
    used: Tensor  # share of the prototypes that are some row's largest


class Centre(nn.Module):
    """Running mean (K,) of the teacher's logits, float32.

    ``head_loss.head_targets`` reads it and gives the batch's mean for ``update``. A skipped step
    updates nothing.
    """

    def __init__(self, prototypes: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))

    @torch.no_grad()
    def update(self, mean: Tensor) -> None:
        """Move towards a batch's mean (K,)."""
        self.value.lerp_(mean.to(self.value.dtype), 1 - self.momentum)


def share(total: Tensor, count: Tensor, reducer: Reducer) -> Tensor:
    """This rank's share of a global mean: local ``total`` x world size / global ``count``; zero if
    nothing counts.

    The average over ranks is the global mean, as with ``Reducer.mean``.
    """
    return total * reducer.world_size / reducer.sum(count.detach().float()).clamp(min=1)
