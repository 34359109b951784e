"""Blocks of stages 3 and 4: plain pre-norm transformer with global attention inside each image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import MAX_GRID, split_alike
from models.packing import Layout, pack


class FeedForward(nn.Module):
    """Linear, GELU, linear; called like the mixture of experts, for which it is the dense stand-in."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        """(N, D), mask (N,) unused -> (N, D), no routing."""
        return self.fc2(F.gelu(self.fc1(x))), None


class GlobalAttention(nn.Module):
    """Multi-head self-attention over all tokens of an image, prompts included."""

    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Packed (N, D) -> (N, D); projections once over the packed axis, attention by image."""
        qkv = self.qkv(x).unflatten(-1, (3, -1, self.head_dim))  # N 3 heads d
        return self.out(pack([self._attend(part) for _, part in split_alike(qkv, layout)]))  # N D

    def _attend(self, qkv: Tensor) -> Tensor:
        """(images, length, 3, heads, d) -> (images, length, D)."""
        done = []
        for part in qkv.split(MAX_GRID):
            q, k, v = part.permute(2, 0, 3, 1, 4)  # images heads length d
            done.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # images length D
        return done[0] if len(done) == 1 else torch.cat(done)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, width: int, head_dim: int, ffn: nn.Module):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = GlobalAttention(width, head_dim)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = ffn

    def forward(self, x: Tensor, layout: Layout, mask: Tensor) -> tuple[Tensor, object]:
        """Packed (N, D), mask (N,) bool of the tokens that experts serve -> (N, D) and the routing, or None."""
        x = x + self.attention(self.norm1(x), layout)  # N D
        y, routing = self.ffn(self.norm2(x), mask)  # N D
        return x + y, routing
