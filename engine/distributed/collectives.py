"""What ranks tell each other outside DeepSpeed: batch statistics, and whether one has failed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import USER_ERRORS, RankError
from models.reducer import Reducer

_LONGEST_LINE = 500  # characters of an error that travel to the other ranks


def _sum(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Sum over ranks in a new tensor."""
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class _SumWithGrad(torch.autograd.Function):
    """A sum over ranks whose backward is a sum over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        """Any shape; the same shape on all ranks."""
        ctx.group = group
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Every rank's loss depends on this rank's summand."""
        return _sum(grad, ctx.group), None


class DistributedReducer(Reducer):
    """Collectives over a data-parallel group.

    All ranks of the group must make the same calls with equal shapes. ``zero.init_distributed``
    comes first.
    """

    def __init__(self, group: dist.ProcessGroup | None = None):
        """Take a process group; None means all processes."""
        self.group = group
        self.world_size = dist.get_world_size(group)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over ranks, no gradient, any shape. The argument is left untouched."""
        return _sum(x, self.group)

    def max(self, x: Tensor) -> Tensor:
        """Elementwise maximum over ranks, no gradient, any shape. The argument is untouched."""
        largest = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group)
        return largest

    def sum_with_grad(self, x: Tensor) -> Tensor:
        """Sum over ranks whose backward sums the gradients over ranks too."""
        return _SumWithGrad.apply(x, self.group)

    def gather(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n x world size, ...), rank after rank, no gradient.

        The shapes must be equal on all ranks.
        """
        x = x.detach().contiguous()
        gathered = x.new_empty((self.world_size * x.shape[0], *x.shape[1:]))
        dist.all_gather_into_tensor(gathered, x, group=self.group)
        return gathered


def together(action: Callable[[], Any]) -> Any:
    """Run ``action`` on every rank and return this rank's result.

    Without it the rank that failed would leave while the others wait for it in their next
    collective. So ``action`` must have no collective that a failing rank would miss. In a process
    without process groups it is simply called.

    Raises:
        RankError: ``action`` failed on some rank; raised on all of them.
    """
    outcome = _attempt(action)
    _raise_first(_exchange(outcome.problem), outcome.error)
    return outcome.result


def collect(action: Callable[[], Any]) -> list:
    """As ``together``, but returns the (small) results of all ranks in rank order."""
    outcome = _attempt(action)
    answers = _exchange((outcome.result, outcome.problem))
    _raise_first([problem for _, problem in answers], outcome.error)
    return [result for result, _ in answers]


def on_first_rank(action: Callable[[], Any]) -> Any:
    """Run ``action`` on rank 0 alone, and return its (small) result on all ranks.

    Raises:
        RankError: It failed; raised on all ranks.
    """

    def nothing() -> None:
        return None

    if not is_first_rank():
        action = nothing
    return collect(action)[0]


def is_first_rank() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def share_of(work: Sequence) -> Sequence:
    """This rank's part of some work, in which every item is some rank's."""
    if not dist.is_initialized():
        return work
    return work[dist.get_rank() :: dist.get_world_size()]


@dataclass
class _Outcome:
    """What an action gave on this rank: a result, or an error and how other ranks hear of it."""

    result: Any = None
    problem: str | None = None  # the error as one line
    error: Exception | None = None


def _attempt(action: Callable[[], Any]) -> _Outcome:
    """Call an action and keep its error, whatever it is: the other ranks must hear of it."""
    try:
        return _Outcome(result=action())
    except Exception as error:
        problem = " ".join(str(error).split())[:_LONGEST_LINE]
        if not isinstance(error, USER_ERRORS):
            problem = f"{type(error).__name__}: {problem}"
        return _Outcome(problem=problem, error=error)


def _exchange(message: Any) -> list:
    """Every rank's small object, in rank order."""
    if not dist.is_initialized():
        return [message]
    messages: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, message)
    return messages


def _raise_first(problems: list[str | None], error: Exception | None) -> None:
    """Raise the problem of the first rank that has one. Its rank is named unless it is rank 0."""
    for rank, problem in enumerate(problems):
        if problem is None:
            continue
        if rank > 0:
            problem = f"rank {rank}: {problem}"
        raise RankError(problem) from error
