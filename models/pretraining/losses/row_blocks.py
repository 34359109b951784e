"""Blocks of rows of logits: how many rows a block has, and which code computes on it."""

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from models.errors import ModelError
from models.kernels.dispatch import kernel_path
from models.pretraining.losses import head_tiles


def select_tiles(x: Tensor) -> ModuleType:
    """Return the module that computes on blocks for ``x``: the kernels or the PyTorch reference."""
    obstacle = None
    if x.dtype != torch.float32:
        obstacle = f"{x.dtype}"
    if kernel_path("head_loss", x, why_not=obstacle):
        from models.kernels import head_loss

        return head_loss
    return head_tiles


def row_blocks(
    tiles: ModuleType, *, rows: int, row_size: int, device: torch.device
) -> Iterator[slice]:
    """Yield slices of the rows that hold about ``tiles.block_size`` numbers each.

    Args:
        tiles: of ``select_tiles``.
        rows: number of rows.
        row_size: numbers computed for a row.
        device: of the rows.
    """
    step = max(1, tiles.block_size(device) // row_size)
    for start in range(0, rows, step):
        yield slice(start, start + step)


def check_head_output(features: Tensor, prototypes: Tensor) -> None:
    """Refuse what a projection head does not return.

    Raises:
        ModelError: the types differ or are neither float32 nor float64, or the shapes are not
            (N, D) and (K, D).
    """
    types = {features.dtype, prototypes.dtype}
    if len(types) > 1 or not types <= {torch.float32, torch.float64}:
        raise ModelError(
            f"head loss: expected float32 (or float64) features and prototypes, found "
            f"{features.dtype} and {prototypes.dtype}; half precision is too coarse for a "
            "temperature of 0.04"
        )
    if features.ndim != 2 or prototypes.ndim != 2 or features.shape[1] != prototypes.shape[1]:
        raise ModelError(
            f"head loss: expected features (N, D) and prototypes (K, D), found "
            f"{tuple(features.shape)} and {tuple(prototypes.shape)}"
        )
