"""Ranks as threads, for kernels that are interpreted."""

from models.reducer import Reducer


class Turns(Reducer):
    """A thread's reducer.

    One thread computes at a time, since Triton's interpreter serves no more.
    """

    def __init__(self, inner, turn):
        self.inner, self.turn = inner, turn

    def sum(self, x):
        return self._let_others(self.inner.sum, x)

    def max(self, x):
        return self._let_others(self.inner.max, x)

    def _let_others(self, exchange, x):
        self.turn.release()
        try:
            return exchange(x)
        finally:
            self.turn.acquire()
