"""Learnable queries that read a view's fused map (query-based semantic aggregation)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError

TOKEN_STD = 0.02


class Attention(nn.Module):
    """Multi-head attention of ``width`` over keys and values made from ``in_width`` channels."""

    def __init__(self, width: int, in_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(in_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """(M, m, width) reads (M, n, in_width) where ``mask`` (M, n) bool -> (M, m, width)."""
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # M heads m or n head_dim
            for t in (self.q(x), *self.kv(memory).chunk(2, dim=-1))
        )
        mask = None if mask is None else mask[:, None, None]  # M 1 1 n
        return self.out(
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        )  # M m W


class QueryDecoder(nn.Module):
    """m learnable queries and one pre-norm decoder layer: among themselves, over the map's cells,
    MLP x 4."""

    def __init__(self, in_width: int, width: int, queries: int, heads: int, mlp_ratio: int = 4):
        super().__init__()
        if width % heads:
            raise ModelError(f"query decoder: width {width} is not a multiple of heads {heads}")
        self.queries = nn.Parameter(torch.zeros(queries, width))
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = Attention(width, in_width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)
        self.norm = nn.LayerNorm(width)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the queries; they are the only parameter that no standard module owns."""
        if name != "queries":
            raise ValueError(f"QueryDecoder: expected the parameter 'queries', found {name!r}")
        with torch.no_grad():
            tensor.normal_(std=TOKEN_STD, generator=generator)

    def forward(self, cells: Tensor, mask: Tensor) -> Tensor:
        """Map (M, cells, in_width), mask (M, cells) bool -> (M, m, width).

        What stands in a masked cell has no influence. A map without a valid cell is read as zeros:
        its result is finite and carries nothing.
        """
        cells = cells.where(
            mask[..., None], cells.new_zeros(())
        )  # M cells D; weight 0 x NaN would be NaN
        mask = mask | ~mask.any(dim=1, keepdim=True)  # M cells
        x = self.queries.to(cells.dtype).expand(cells.shape[0], -1, -1)  # M m W
        read = self.norm1(x)  # M m W
        x = x + self.self_attention(read, read)  # M m W
        x = x + self.cross_attention(self.norm2(x), cells, mask)  # M m W
        x = x + self.fc2(F.gelu(self.fc1(self.norm3(x))))  # M m W
        return self.norm(x)
