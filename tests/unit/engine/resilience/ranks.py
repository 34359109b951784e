"""Other ranks for the tests of votes, without processes."""

import torch
from torch import Tensor

from models.reducer import Reducer


class Ranks(Reducer):
    """This process, and others that give the values named here."""

    def __init__(self, *others: float):
        self.others = others
        self.world_size = 1 + len(others)

    def max(self, x: Tensor) -> Tensor:
        others = [torch.full_like(x, value) for value in self.others]
        return torch.stack([x, *others]).amax(0)
