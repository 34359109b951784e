"""Learnable queries that read the fused map of a view (query-based semantic aggregation)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError

TOKEN_STD = 0.02


class Attention(nn.Module):
    """Multi-head attention of ``width`` over keys and values made from ``in_width`` channels."""

    def __init__(self, width: int, *, in_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(in_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read a memory.

        Args:
            x: (M, m, width), the queries.
            memory: (M, n, in_width).
            mask: (M, n) bool, which entries of the memory may be read; None: all.

        Returns:
            (M, m, width).
        """
        keys, values = self.kv(memory).chunk(2, dim=-1)  # M n width
        q = self._split_heads(self.q(x))  # M heads m head_dim
        k = self._split_heads(keys)  # M heads n head_dim
        v = self._split_heads(values)  # M heads n head_dim
        if mask is not None:
            mask = mask[:, None, None]  # M 1 1 n
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # M heads m head_dim
        return self.out(read.transpose(1, 2).flatten(2))  # M m width

    def _split_heads(self, x: Tensor) -> Tensor:
        """(M, n, width) -> (M, heads, n, head_dim)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class QueryDecoder(nn.Module):
    """m learnable queries and one pre-norm decoder layer.

    The layer has attention among the queries, attention over the cells of the map, and an MLP.
    """

    def __init__(self, in_width: int, width: int, *, queries: int, heads: int, mlp_ratio: int = 4):
        super().__init__()
        if width % heads:
            raise ModelError(f"query decoder: width {width} is not a multiple of heads {heads}")
        self.queries = nn.Parameter(torch.zeros(queries, width))
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = Attention(width, in_width=width, heads=heads)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = Attention(width, in_width=in_width, heads=heads)
        self.norm3 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, mlp_ratio * width)
        self.fc2 = nn.Linear(mlp_ratio * width, width)
        self.norm = nn.LayerNorm(width)

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the queries, the only parameter that no standard module owns.

        Raises:
            ValueError: any other name; this class then has a parameter without a rule.
        """
        if name != "queries":
            raise ValueError(f"QueryDecoder: expected the parameter 'queries', found {name!r}")
        with torch.no_grad():
            tensor.normal_(std=TOKEN_STD, generator=generator)

    def forward(self, cells: Tensor, mask: Tensor) -> Tensor:
        """Read maps with the queries.

        Masked cells have no influence. A map without a valid cell is read as zeros, so its result
        is finite and carries no information.

        Args:
            cells: (M, G, in_width).
            mask: (M, G) bool.

        Returns:
            (M, m, width).
        """
        # Attention weights of zero are not enough: 0 x NaN would be NaN.
        cells = cells.where(mask[..., None], cells.new_zeros(()))  # M G D
        mask = mask | ~mask.any(dim=1, keepdim=True)  # M G
        x = self.queries.to(cells.dtype).expand(cells.shape[0], -1, -1)  # M m width
        normed = self.norm1(x)  # M m width
        x = x + self.self_attention(normed, normed)  # M m width
        x = x + self.cross_attention(self.norm2(x), cells, mask)  # M m width
        x = x + self.fc2(F.gelu(self.fc1(self.norm3(x))))  # M m width
        return self.norm(x)
