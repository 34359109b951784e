"""Tables of packed batches for tests that only need tokens."""

import torch

from models.moe.layer import MoE, Routing
from models.packing import Group, Layout


def one_group(tokens: int) -> Layout:
    """A table of ``tokens`` images of one token each."""
    return Layout((Group("ms", "global", tokens, height=1, width=1),))


def run_moe(moe: MoE, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Routing]:
    """Call a MoE layer on tokens (N, D) of one group."""
    return moe(x, one_group(len(x)), mask)
