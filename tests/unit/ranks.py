"""Ranks as threads of one process, for what asks a reducer about the global batch."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from models.reducer import Reducer
from tests.paths import PATIENCE


class ThreadReducer(Reducer):
    """One thread's reducer. Sums run in rank order, so all threads get the same bits."""

    def __init__(self, rank: int, world_size: int, shared: dict, barrier: threading.Barrier):
        self.rank, self.world_size, self.shared, self.barrier = rank, world_size, shared, barrier

    def _exchange(self, x):
        self.shared[self.rank] = x.detach().clone()
        self.barrier.wait(timeout=PATIENCE)
        parts = [self.shared[rank] for rank in range(self.world_size)]
        self.barrier.wait(timeout=PATIENCE)
        return parts

    def sum(self, x):
        """Sum over the threads."""
        return torch.stack(self._exchange(x)).sum(dim=0)

    def max(self, x):
        """Maximum over the threads."""
        return torch.stack(self._exchange(x)).amax(dim=0)

    def gather(self, x):
        """Concatenation over the threads."""
        return torch.cat(self._exchange(x))


def run_ranks(world_size, work):
    """``work(rank, reducer)`` on every rank at once -> results in rank order; an error in one is
    raised."""
    shared, barrier = {}, threading.Barrier(world_size)

    def guarded(rank):
        try:
            return work(rank, ThreadReducer(rank, world_size, shared, barrier))
        except BaseException:
            barrier.abort()  # the others must not wait for this rank
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(guarded, range(world_size)))
