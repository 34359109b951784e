"""What a comparison consists of: candidates with the same values, their work, and the goals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

FORWARD = "forward"
BACKWARD = "backward"
BOTH = "forward + backward"


@dataclass(frozen=True)
class Candidate:
    """One implementation on inputs of its own.

    Attributes:
        name: Name in the tables.
        call: Computes the result.
        leaves: What gradients are taken of, in the same order in all candidates of a case.
        ours: Made by this project: an error in it fails the comparison, and the goals are for it.
    """

    name: str
    call: Callable[[], Tensor]
    leaves: tuple[Tensor, ...] = ()
    ours: bool = False


@dataclass(frozen=True)
class Work:
    """The least that any implementation must do.

    Attributes:
        bytes: Inputs read once and results written once.
        flops: Of matrix products; a multiply-add counts as two.
    """

    bytes: float = 0
    flops: float = 0


@dataclass(frozen=True)
class Goal:
    """What our candidate is to reach.

    Attributes:
        part: FORWARD, BACKWARD or BOTH.
        kind: "speed" (times faster than ``than``), "copy" (share of the copy rate) or "memory"
            (share of the extra memory of ``than``).
        bound: At least this much; of memory at most.
        than: Name of another candidate.
    """

    part: str
    kind: str
    bound: float
    than: str = ""


@dataclass(frozen=True)
class Case:
    """Candidates for one result; the others are compared with the first.

    Attributes:
        name: Name in the tables.
        size: The size in words.
        exact: Computes in float64 what values are compared with.
        candidates: What is compared.
        tolerance: Of norm(result - exact) / norm(exact), for the result and for each gradient.
        products: Type of the matrix products whose rate is the ceiling.
        work: Of FORWARD and, where there are leaves, of BACKWARD.
        goals: What our candidate is to reach.
        left_out: Name of a candidate -> why it is not here.
        split: False where a candidate makes its gradients in the forward pass: the backward pass
            has no time of its own.
    """

    name: str
    size: str
    exact: Candidate
    candidates: tuple[Candidate, ...]
    tolerance: float
    products: torch.dtype
    work: Mapping[str, Work] = field(default_factory=dict)
    goals: tuple[Goal, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    split: bool = True

    def parts(self) -> tuple[str, ...]:
        """What is timed."""
        if not self.exact.leaves:
            return (FORWARD,)
        if self.split:
            return (FORWARD, BACKWARD, BOTH)
        return (FORWARD, BOTH)

    def work_of(self, part: str) -> Work:
        """The work of a part; BOTH is the sum of the other two."""
        if part != BOTH:
            return self.work.get(part, Work())
        forward = self.work_of(FORWARD)
        backward = self.work_of(BACKWARD)
        return Work(forward.bytes + backward.bytes, forward.flops + backward.flops)


def leaves(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Copies that gradients are taken of."""
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """``leaves`` of the same values in float64."""
    return leaves(*(tensor.double() for tensor in tensors))
