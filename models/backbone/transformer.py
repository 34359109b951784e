"""Blocks of stages 3 and 4: plain pre-norm transformer with global attention inside each image."""

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone.attention import MAX_GRID, join, split_alike
from models.backbone.feed_forward import run_ffn
from models.backbone.prompts import drop_prefix
from models.moe.layer import Routing
from models.packing import Layout, pack


class GlobalAttention(nn.Module):
    """Multi-head self-attention over all tokens of an image, prompts included.

    With ``drop_prompts`` the prompts give keys and values only, and are not in the result.
    """

    def __init__(self, width: int, *, head_dim: int, drop_prompts: bool = False):
        super().__init__()
        self.head_dim = head_dim
        self.drop_prompts = drop_prompts
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Attend inside every image.

        Args:
            x: Packed tokens (N, D). They are projected all at once.
            layout: Their table.

        Returns:
            Packed (N, D), or (N', D) without the prompts.
        """
        width = x.shape[-1]
        queries = x
        query_layout = layout
        if self.drop_prompts:
            queries, query_layout = drop_prefix(x, layout)  # N' D
        if query_layout == layout:
            q, kv = self.qkv(x).split((width, 2 * width), dim=-1)  # N D, N 2D
        else:
            weight = self.qkv.weight
            bias = self.qkv.bias
            q = F.linear(queries, weight[:width], bias[:width])  # N' D
            kv = F.linear(x, weight[width:], bias[width:])  # N 2D
        q = q.unflatten(-1, (-1, self.head_dim))  # N' heads d
        kv = kv.unflatten(-1, (2, -1, self.head_dim))  # N 2 heads d
        outputs = []
        for (_, q_images), (_, kv_images) in zip(
            split_alike(q, query_layout), split_alike(kv, layout), strict=True
        ):
            outputs.append(self.attend(q_images, kv_images))
        return self.out(pack(outputs))  # N' D

    def attend(self, q: Tensor, kv: Tensor) -> Tensor:
        """Attention inside images of one shape.

        Args:
            q: Queries (images, l, heads, d).
            kv: Keys and values (images, length, 2, heads, d).

        Returns:
            (images, l, D).
        """
        outputs = []
        for q_part, kv_part in zip(q.split(MAX_GRID), kv.split(MAX_GRID)):
            k, v = kv_part.permute(2, 0, 3, 1, 4)  # images heads length d
            x = F.scaled_dot_product_attention(q_part.transpose(1, 2), k, v)  # images heads l d
            outputs.append(x.transpose(1, 2).flatten(2))  # images l D
        return join(outputs)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)).

    Nobody reads the prompts behind the ``last`` block of a stage. So it drops them once its
    attention has read them, and neither the network nor its experts see them.
    """

    def __init__(self, width: int, ffn: nn.Module, *, head_dim: int, last: bool = False):
        super().__init__()
        self.last = last
        self.norm1 = nn.LayerNorm(width)
        self.attention = GlobalAttention(width, head_dim=head_dim, drop_prompts=last)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = ffn

    def forward(self, x: Tensor, layout: Layout, mask: Tensor) -> tuple[Tensor, Routing | None]:
        """Run the block.

        Args:
            x: Packed tokens (N, D).
            layout: Their table.
            mask: (N,) bool, the tokens that experts serve.

        Returns:
            Packed (N, D), or (N', D) without the prompts; and the routing of a MoE layer or None.
        """
        attended = self.attention(self.norm1(x), layout)  # N' D
        if self.last:
            mask, _ = drop_prefix(mask, layout)  # N'
            x, layout = drop_prefix(x, layout)  # N' D
        x = x + attended  # N' D
        y, routing = run_ffn(self.ffn, self.norm2(x), layout, mask)  # N' D
        return x + y, routing
