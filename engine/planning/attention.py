"""Which attention a GPU computes. On the meta device torch would write out the scores."""

from contextlib import AbstractContextManager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

ATEN = torch.ops.aten
ALIGNMENT = 16  # the rows of a mask are padded to multiples of it


def gpu_attention() -> AbstractContextManager:
    """While it is entered, attention runs the operator that it runs on a GPU.

    It stands in for torch's function, because a mode would not be heard where a backward pass
    computes a block again.
    """
    return mock.patch.object(F, "scaled_dot_product_attention", _attend)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """(B, heads, l, d), (B, heads, L, d) twice -> (B, heads, l, d).

    Flash attention knows neither masks nor float32.
    """
    if attn_mask is None and query.dtype != torch.float32:
        return ATEN._scaled_dot_product_flash_attention(query, key, value, scale=scale)[0]
    if attn_mask is not None:
        length = key.shape[-2]
        if length % ALIGNMENT:
            attn_mask = F.pad(attn_mask, (0, -length % ALIGNMENT))[..., :length]
        attn_mask = attn_mask.expand(*query.shape[:-1], length)
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    return ATEN._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, learns, scale=scale
    )[0]
