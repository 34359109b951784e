"""The learning loss CL of all levels (DINO): cross-entropy from the teacher's sharpened, centred distribution."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.losses.sinkhorn import sinkhorn
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


class Targets(NamedTuple):
    """What the teacher gives for one set of rows."""

    probabilities: Tensor  # N K float32, masked rows zero
    statistics: Statistics
    centre: Tensor | None  # K, what ``Centre.update`` wants once the step is applied; None with Sinkhorn-Knopp


class Centre(nn.Module):
    """Running mean (K,) of the teacher's logits, float32. Reading and updating are two calls: a skipped step updates
    nothing."""

    def __init__(self, prototypes: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))

    def forward(self, logits: Tensor) -> Tensor:
        """(N, K) -> centred (N, K) float32."""
        return logits.float() - self.value.float()

    @torch.no_grad()
    def batch_mean(self, logits: Tensor, mask: Tensor, reducer: Reducer) -> Tensor:
        """Mean (K,) of the valid rows of the global batch; the present centre if there are none."""
        count = reducer.sum(mask.sum())
        total = reducer.sum(logits.float().where(mask[:, None], 0.0).sum(dim=0))  # K
        return (total / count.clamp(min=1)).where(count > 0, self.value.float())

    @torch.no_grad()
    def update(self, mean: Tensor) -> None:
        """Move towards a batch's mean (K,), from ``batch_mean``."""
        self.value.lerp_(mean.to(self.value.dtype), 1 - self.momentum)


def cross_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """- sum_k targets_k log softmax(logits / temperature)_k: (..., K), (..., K) -> (...) float32.

    The loss is linear in the targets: the sum of several partners' targets gives the sum of their losses.
    Autograd keeps two float32 tensors of the size of the logits: log-softmax and targets.
    """
    return -(targets * (logits.float() / temperature).log_softmax(dim=-1)).sum(dim=-1)


@torch.no_grad()
def sharpen(logits: Tensor, mask: Tensor, spec: DinoSpec, reducer: Reducer, centre: Centre | None = None) -> Tensor:
    """Teacher logits (N, K), mask (N,) bool -> target distributions (N, K) float32, masked rows zero.

    Without a ``centre``: Sinkhorn-Knopp over the valid rows of the global batch; with one: softmax of the centred
    logits.
    """
    if centre is None:
        return sinkhorn(logits, spec.teacher_temperature, spec.iterations, mask, reducer)
    return (centre(logits) / spec.teacher_temperature).softmax(dim=-1).where(mask[:, None], 0.0)


@torch.no_grad()
def teacher_targets(logits: Tensor, mask: Tensor, spec: DinoSpec, reducer: Reducer,
                    centre: Centre | None = None) -> Targets:
    """Targets (see ``sharpen``), their statistics and the centre's next step."""
    probabilities = sharpen(logits, mask, spec, reducer, centre)  # N K
    mean = None if centre is None else centre.batch_mean(logits, mask, reducer)
    return Targets(probabilities, teacher_statistics(probabilities, mask, reducer), mean)


@torch.no_grad()
def teacher_statistics(targets: Tensor, mask: Tensor, reducer: Reducer) -> Statistics:
    """``targets`` (N, K), masked rows zero, ``mask`` (N,) bool -> scalars, equal on all ranks; zero without rows."""
    prototypes = targets.shape[-1]
    entropy = -torch.special.xlogy(targets, targets).sum()
    count, entropy = reducer.sum(torch.stack([mask.sum().float(), entropy])).unbind()
    count = count.clamp(min=1)
    mean = reducer.sum(targets.sum(dim=0)) / count  # K
    hits = reducer.sum(targets.argmax(dim=-1)[mask].bincount(minlength=prototypes))  # K
    return Statistics(entropy / count, torch.special.entr(mean).sum(), (hits > 0).float().mean())


def paired_cross_entropy(logits: Tensor, mask: Tensor, targets: Tensor, target_mask: Tensor, partners: Tensor,
                         temperature: float) -> tuple[Tensor, Tensor]:
    """Sum of the losses of all pairs (student view s, teacher view t) with ``partners[s, t]``, and their number.

    ``logits`` (B, S, n, K), ``mask`` (B, S, n) bool, ``targets`` (B, t, n, K) zero where masked, ``target_mask``
    (B, t, n) bool, ``partners`` (S, t) bool. Row n of a view meets row n of the other. Returns two scalars.
    """
    weight = partners.to(targets.dtype)  # S t
    summed = torch.einsum("st,btnk->bsnk", weight, targets)  # B S n K
    pairs = torch.einsum("st,btn->bsn", weight, target_mask.to(weight.dtype)).where(mask, 0.0)  # B S n
    values = cross_entropy(logits, summed, temperature)  # B S n
    return values.where(mask, 0.0).sum(), pairs.sum()


def share(total: Tensor, count: Tensor, reducer: Reducer) -> Tensor:
    """This rank's share of a global mean: local ``total`` x world size / global ``count``; zero if nothing counts.

    The average over ranks is the global mean, as with ``Reducer.mean``.
    """
    return total * reducer.world_size / reducer.sum(count.detach().float()).clamp(min=1)
