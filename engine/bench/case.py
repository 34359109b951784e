"""What a comparison consists of: several ways to the same values, how much work they are, and what
is aimed at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

FORWARD, BACKWARD, BOTH = "forward", "backward", "forward + backward"


class Way(NamedTuple):
    """One implementation on inputs of its own."""

    name: str
    call: Callable[[], Tensor]
    leaves: tuple[
        Tensor, ...
    ] = ()  # what gradients are taken of, in the same order in all ways of a case
    ours: bool = (
        False  # what this project made: an error in it fails the comparison, the goals are its
    )


class Work(NamedTuple):
    """The least that any implementation must do."""

    bytes: float = 0  # inputs read once, results written once
    flops: float = 0  # of matrix products; a multiply-add counts as two


class Goal(NamedTuple):
    """What our way is to reach."""

    part: str  # FORWARD, BACKWARD or BOTH
    # "speed": times faster than ``than``; "copy": share of the copy rate; "memory": share of
    # ``than``'s
    kind: str
    bound: float  # at least, of memory at most
    than: str = ""


@dataclass(frozen=True)
class Case:
    """Ways to one result; the first is what the others are compared with."""

    name: str
    size: str
    exact: Way  # float64, what values are compared with
    ways: tuple[Way, ...]
    tolerance: float  # of norm(found - exact) / norm(exact), of the result and of each gradient
    products: torch.dtype  # of the matrix products whose rate is the ceiling
    work: Mapping[str, Work] = field(
        default_factory=dict
    )  # FORWARD and, where there are leaves, BACKWARD
    goals: tuple[Goal, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)  # way -> why it is not among the ways
    # False where a way makes its gradients in the forward pass: no time of the backward pass alone
    split: bool = True

    def parts(self) -> tuple[str, ...]:
        """What is timed."""
        if not self.exact.leaves:
            return (FORWARD,)
        return (FORWARD, BACKWARD, BOTH) if self.split else (FORWARD, BOTH)

    def work_of(self, part: str) -> Work:
        """BOTH is the sum of the two."""
        if part != BOTH:
            return self.work.get(part, Work())
        one, two = self.work.get(FORWARD, Work()), self.work.get(BACKWARD, Work())
        return Work(one.bytes + two.bytes, one.flops + two.flops)


def leaves(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Copies that gradients are taken of."""
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """``leaves`` of the same values in float64."""
    return leaves(*(tensor.double() for tensor in tensors))
