"""Blocks of stages 3 and 4: plain pre-norm transformer with global attention inside each image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone.attention import MAX_GRID, split_alike
from models.backbone.packing import Layout, pack
from models.backbone.prompts import drop_prefix


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
    """Multi-head self-attention over all tokens of an image, prompts included.

    ``drop_prompts``: prompts give keys and values only, and are gone from the result.
    """

    def __init__(self, width: int, head_dim: int, drop_prompts: bool = False):
        super().__init__()
        self.head_dim = head_dim
        self.drop_prompts = drop_prompts
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Packed (N, D) -> (N, D); projections once over the packed axis, attention by image."""
        width = x.shape[-1]
        asking, asked = x, layout
        if self.drop_prompts:
            asking, asked = drop_prefix(x, layout)
        if asked == layout:
            q, kv = self.qkv(x).split((width, 2 * width), dim=-1)  # N D, N 2D
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q, kv = (
                F.linear(asking, weight[:width], bias[:width]),
                F.linear(x, weight[width:], bias[width:]),
            )
        q = q.unflatten(-1, (-1, self.head_dim))  # N heads d
        kv = kv.unflatten(-1, (2, -1, self.head_dim))  # N 2 heads d
        parts = zip(split_alike(q, asked), split_alike(kv, layout), strict=True)
        return self.out(
            pack([self._attend(mine, theirs) for (_, mine), (_, theirs) in parts])
        )  # N D

    def _attend(self, q: Tensor, kv: Tensor) -> Tensor:
        """(images, l, heads, d), (images, length, 2, heads, d) -> (images, l, D)."""
        done = []
        for mine, theirs in zip(q.split(MAX_GRID), kv.split(MAX_GRID)):
            mine, (k, v) = (
                mine.transpose(1, 2),
                theirs.permute(2, 0, 3, 1, 4),
            )  # images heads length d
            done.append(
                F.scaled_dot_product_attention(mine, k, v).transpose(1, 2).flatten(2)
            )  # images l D
        return done[0] if len(done) == 1 else torch.cat(done)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)).

    ``last`` of its stage: nobody reads what becomes of the prompts, so they are dropped where the
    block has read them, and neither the network nor its experts see them.
    """

    def __init__(self, width: int, head_dim: int, ffn: nn.Module, last: bool = False):
        super().__init__()
        self.last = last
        self.norm1 = nn.LayerNorm(width)
        self.attention = GlobalAttention(width, head_dim, drop_prompts=last)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = ffn

    def forward(self, x: Tensor, layout: Layout, mask: Tensor) -> tuple[Tensor, object]:
        """Packed (N, D), mask (N,) bool of the tokens that experts serve -> (N, D) and the routing,
        or None."""
        read = self.attention(self.norm1(x), layout)  # N D
        if self.last:
            (x, _), (mask, _) = drop_prefix(x, layout), drop_prefix(mask, layout)  # N D, N
        x = x + read  # N D
        y, routing = self.ffn(self.norm2(x), mask)  # N D
        return x + y, routing
