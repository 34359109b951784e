"""Linear probes: logistic regressions on frozen features, 13 learning rates in one pass."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.errors import InputError
from data.seeded import generator

# Of features whose mean square is one an item (see ``_Scale``): from so small that the weights
# hardly leave zero to the edge of what converges.
RATES = tuple(10 ** (third / 3) for third in range(-5, 8))
MOMENTUM = 0.9
BATCH = 256
MOST_STEPS = 1000  # batches
LEAST_STEPS = 300
PASSES = 100  # over the items, between these limits: more change an accuracy by 0.3 points


@dataclass(frozen=True)
class _Scale:
    """Brings every feature to mean 0 and variance 1 / D over the train part.

    So one list of rates fits any model: random ones, whose features hardly vary, as well as trained
    ones, and any D.
    """

    mean: Tensor  # D
    factor: Tensor  # D

    @classmethod
    def of(cls, features: Tensor) -> "_Scale":
        exact = features.double()  # N D
        deviation = exact.std(0, correction=0)  # D
        rounding = 1e-6 * exact.square().mean(0).sqrt()  # D
        factor = torch.where(deviation > rounding, 1 / deviation, 0) / exact.shape[1] ** 0.5
        return cls(exact.mean(0), factor)

    def __call__(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, D + 1) float32, the last one constant for the bias."""
        scaled = ((features.double() - self.mean) * self.factor).float()  # N D
        return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], 1)


@dataclass(frozen=True)
class Probes:
    """A trained probe for each rate."""

    scale: _Scale
    weights: Tensor  # D+1 P K, P probes

    def scores(self, features: Tensor) -> Tensor:
        """Logits of every probe: (N, D) -> (P, N, K)."""
        x = self.scale(features)  # N D+1
        return (x @ self.weights.flatten(1)).unflatten(1, self.weights.shape[1:]).movedim(1, 0)


@torch.no_grad()
def train(
    features: Tensor,
    labels: Tensor,
    *,
    several: bool,
    seed: int = 0,
    rates: tuple[float, ...] = RATES,
    steps: int | None = None,
) -> Probes:
    """Train probes from zero by SGD with momentum, without decay; each rate falls to 0 as a cosine.

    All probes see the same batches, so their logits are one matrix product.

    Args:
        features: (N, D), finite.
        labels: (N, K) float, one where an item has a class.
        several: an item may have several classes, each of which is decided by itself; otherwise it
            has exactly one.
        seed: of the order of the items.
        rates: P learning rates.
        steps: batches; None: as many as ``PASSES`` over the items have, between the limits.

    Raises:
        InputError: there are no items, their numbers differ, or a feature is not finite.
    """
    if len(features) == 0 or len(features) != len(labels) or not features.isfinite().all():
        raise InputError(
            f"linear probe: expected finite features of N x D and labels of N x K, found "
            f"{tuple(features.shape)} and {tuple(labels.shape)}"
        )
    scale = _Scale.of(features)
    x = scale(features)  # N D+1
    y = labels.float()  # N K
    shape = (x.shape[1], len(rates), y.shape[1])  # D+1 P K
    weights = torch.zeros(shape)
    speed = torch.zeros(shape)
    peaks = torch.tensor(rates)[:, None]  # P 1
    batch = min(BATCH, len(x))
    if steps is None:
        steps = max(LEAST_STEPS, min(MOST_STEPS, PASSES * len(x) // batch))
    cosine = (torch.arange(steps) / steps * torch.pi).cos() / 2 + 0.5  # steps
    rng = generator("linear probe", seed)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < batch:
            order = torch.from_numpy(rng.permutation(len(x)))
        rows = order[:batch]
        order = order[batch:]
        inputs = x[rows]  # n D+1
        logits = (inputs @ weights.flatten(1)).unflatten(1, shape[1:])  # n P K
        if several:
            error = logits.sigmoid() - y[rows][:, None]  # n P K
        else:
            error = logits.softmax(-1) - y[rows][:, None]  # n P K
        gradient = (inputs.T @ error.flatten(1)).unflatten(1, shape[1:]) / batch  # D+1 P K
        speed.mul_(MOMENTUM).add_(gradient)
        weights.sub_(speed * (peaks * cosine[step]))
    return Probes(scale, weights)
