"""Confidence intervals by drawing the tested units again (the bootstrap)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from data.seeded import generator

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and where it lies in the middle 95 % of the draws."""

    value: float
    low: float
    high: float


def draws(units: int, seed: int, count: int = DRAWS) -> Tensor:
    """Test sets drawn again, with replacement.

    Args:
        units: U, of the test set.
        seed: what the draws follow from.
        count: R.

    Returns:
        (R, U) float64, how often each unit is in each draw.
    """
    rng = generator("draws", seed, units)
    times = rng.multinomial(units, [1 / units] * units, size=count)  # R U
    return torch.from_numpy(times).double()


def interval(value: float, drawn: Tensor) -> Interval:
    """The interval of a figure: its percentiles over the draws (R,), NaN left out."""
    edge = (1 - LEVEL) / 2
    low, high = torch.nanquantile(drawn, drawn.new_tensor([edge, 1 - edge])).tolist()
    return Interval(value, low, high)
