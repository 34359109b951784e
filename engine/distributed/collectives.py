"""What ranks tell each other outside DeepSpeed: batch statistics, and whether all of them are well."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import RankError
from models.reducer import Reducer


def _sum(x: Tensor, group) -> Tensor:
    """Sum over ranks in a tensor of its own."""
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class _SumWithGrad(torch.autograd.Function):
    """A sum over ranks whose backward is a sum over ranks."""

    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        """Any shape; the same shape on all ranks."""
        ctx.group = group
        return _sum(x, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        """Every rank's loss depends on this rank's summand."""
        return _sum(grad, ctx.group), None


class DistributedReducer(Reducer):
    """Collectives over a data-parallel group; all its ranks must make the same calls with equal
    shapes.

    ``group`` None: all processes. Needs ``zero.init_distributed`` first.
    """

    def __init__(self, group=None):
        self.group = group
        self.world_size = dist.get_world_size(group)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over ranks, no gradient, any shape. The argument is left untouched."""
        return _sum(x, self.group)

    def max(self, x: Tensor) -> Tensor:
        """Elementwise maximum over ranks, no gradient, any shape. The argument is left untouched."""
        largest = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group)
        return largest

    def sum_with_grad(self, x: Tensor) -> Tensor:
        """Sum over ranks whose backward sums the gradients over ranks too."""
        return _SumWithGrad.apply(x, self.group)

    def gather(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n x world size, ...), rank after rank, no gradient. Equal shapes on all
        ranks."""
        x = x.detach().contiguous()
        parts = x.new_empty((self.world_size * x.shape[0], *x.shape[1:]))
        dist.all_gather_into_tensor(parts, x, group=self.group)
        return parts


def together(action: Callable[[], Any]) -> Any:
    """Run ``action`` on every rank and return this rank's result; if one fails, raise RankError on
    all of them.

    Without it the rank that failed would leave while the others wait for it in their next
    collective. So ``action`` must have no collective that a failing rank would miss. In a process
    without process groups it is simply called.
    """
    result, problem, error = _attempt(action)
    _raise_any(_exchange(problem), error)
    return result


def collect(action: Callable[[], Any]) -> list:
    """As ``together``, but returns the (small) results of all ranks in rank order."""
    result, problem, error = _attempt(action)
    answers = _exchange((result, problem))
    _raise_any([problem for _, problem in answers], error)
    return [result for result, _ in answers]


def on_first_rank(action: Callable[[], Any]) -> Any:
    """Run ``action`` on rank 0 alone; all ranks return its (small) result, or raise RankError if it
    failed."""
    return collect(action if is_first_rank() else lambda: None)[0]


def is_first_rank() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _attempt(action: Callable[[], Any]) -> tuple[Any, str | None, Exception | None]:
    """Result, and the error as one line and as itself."""
    try:
        return action(), None, None
    except (
        Exception
    ) as error:  # whatever it is, the other ranks must hear of it before it goes on its way
        line = " ".join(str(error).split())[:500]
        return (
            None,
            line if isinstance(error, ValueError) else f"{type(error).__name__}: {line}",
            error,
        )


def _exchange(word: Any) -> list:
    """Every rank's small object, in rank order."""
    if not dist.is_initialized():
        return [word]
    words = [None] * dist.get_world_size()
    dist.all_gather_object(words, word)
    return words


def _raise_any(problems: list[str | None], error: Exception | None) -> None:
    """Raise the first rank's problem, named by its rank if rank 0 is well."""
    for rank, line in enumerate(problems):
        if line is not None:
            raise RankError(f"rank {rank}: {line}" if rank else line) from error
