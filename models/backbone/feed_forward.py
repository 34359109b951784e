"""The feed-forward network of a block: dense, or a MoE layer in its place."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.moe.layer import Routing
from models.packing import Layout


class FeedForward(nn.Module):
    """The dense network: linear, GELU, linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


def run_ffn(
    ffn: nn.Module, x: Tensor, layout: Layout, mask: Tensor
) -> tuple[Tensor, Routing | None]:
    """Call the network of a block, whichever kind it is.

    Args:
        ffn: A ``FeedForward`` or a ``models.moe.layer.MoE``.
        x: Packed tokens (N, D).
        layout: Their table.
        mask: (N,) bool, the tokens that experts serve. A dense network serves all.

    Returns:
        Packed (N, D), and the routing of a MoE layer or None.
    """
    if isinstance(ffn, FeedForward):
        return ffn(x), None
    return ffn(x, layout, mask)
