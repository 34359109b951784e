"""Feature maps and validity masks on another grid of the same view, without parameters.

Both directions are one separable linear map: out = A x A^T with a row-stochastic matrix A (area
overlap towards a coarser grid, bilinear towards a finer one). Plain matrix products, so forward and
backward are deterministic on every device, unlike the backward of adaptive pooling and
interpolation on CUDA.
"""

import torch
from torch import Tensor

from models.errors import ModelError

HALF = 0.5 - 1e-4  # "at least half": the slack is for the rounding of sums such as 18 x 1/36


def to_grid(maps: Tensor, valid: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize maps to ``grid`` (i, j) rows and columns; only valid cells have a say.

    ``maps`` (M, h, w, D) with ``valid`` (M, h, w) bool -> (M, i, j, D) and (M, i, j) bool. Towards
    a coarser grid each cell is the area-weighted average of its valid cells, towards a finer one
    the bilinear interpolation of the valid neighbours (their weights rescaled to one). Validity:
    see ``cell_validity``. What stands in an invalid cell, NaN included, has no influence; invalid
    cells of the result are zero.
    """
    height, width = valid.shape[-2:]
    if maps.shape[:-1] != valid.shape:
        raise ModelError(
            f"to_grid: expected valid of shape {tuple(maps.shape[:-1])}, found {tuple(valid.shape)}"
        )
    maps = maps.where(valid[..., None], maps.new_zeros(()))  # M h w D
    if (height, width) == tuple(grid):
        return maps, valid
    rows = resize_matrix(height, grid[0], maps.device)  # i h
    columns = resize_matrix(width, grid[1], maps.device)  # j w
    total = _apply(rows.to(maps.dtype), columns.to(maps.dtype), maps)  # M i j D
    weight = _apply(rows, columns, valid[..., None].float())  # M i j 1
    resized = cell_validity(valid, grid)  # M i j
    # a valid cell has a weight of at least 1/2 (coarser) or 1/4 (finer: its nearest neighbour),
    # never zero
    scale = weight.where(resized[..., None], weight.new_ones(())).to(maps.dtype)  # M i j 1
    return (total / scale).where(resized[..., None], maps.new_zeros(())), resized


def cell_validity(valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """Validity of the cells of ``grid`` (i, j) from that on another grid of the same view, e.g. the
    10 m grid.

    ``valid`` (..., h, w) bool -> (..., i, j) bool. Along a coarser grid a cell is valid if at least
    half of its area is, along a finer one if the cell it lies in is.
    """
    height, width = valid.shape[-2:]
    if (height, width) == tuple(grid):
        return valid
    rows = _cover_matrix(height, grid[0], valid.device)  # i h
    columns = _cover_matrix(width, grid[1], valid.device)  # j w
    return _apply(rows, columns, valid[..., None].float())[..., 0] >= HALF


def resize_matrix(size: int, side: int, device: torch.device | None = None) -> Tensor:
    """Weights (side, size) float32 of ``size`` cells in each of ``side`` cells over the same
    length; rows sum to one.

    Coarser: the share of the target cell that each source cell covers. Finer: linear interpolation
    between the source centres, the border cells extended outwards.
    """
    if side <= size:
        return _overlap(size, side, device)
    centre = (torch.arange(side, device=device) + 0.5) * (size / side) - 0.5  # i, in source cells
    centre = centre.clamp(0, size - 1)
    source = torch.arange(size, device=device)  # h
    return (1 - (centre[:, None] - source).abs()).clamp(min=0)  # i h


def _cover_matrix(size: int, side: int, device: torch.device) -> Tensor:
    """Like ``resize_matrix`` with the nearest source cell, instead of two, towards a finer grid."""
    if side <= size:
        return _overlap(size, side, device)
    nearest = ((2 * torch.arange(side, device=device) + 1) * size).div(
        2 * side, rounding_mode="floor"
    )  # i
    return (nearest[:, None] == torch.arange(size, device=device)).float()  # i h


def _overlap(size: int, side: int, device: torch.device | None) -> Tensor:
    """Share (side, size) of each target cell that each source cell covers; for ``side`` <=
    ``size``."""
    ratio = size / side  # source cells in a target cell
    low = torch.arange(side, device=device)[:, None] * ratio  # i 1
    source = torch.arange(size, device=device)  # h
    shared = torch.minimum(low + ratio, source + 1.0) - torch.maximum(
        low, source.to(low.dtype)
    )  # i h
    return shared.clamp(min=0) / ratio


def _apply(rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    """Both axes in turn: (i, h), (j, w), (..., h, w, D) -> (..., i, j, D)."""
    x = torch.einsum("ih,...hwd->...iwd", rows, x)
    return torch.einsum("jw,...iwd->...ijd", columns, x)
