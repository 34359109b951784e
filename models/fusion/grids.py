"""Feature maps and validity masks on another grid of the same view, without parameters.

Both directions are one separable linear map: out = A x A^T with a row-stochastic matrix A (area
overlap towards a coarser grid, bilinear towards a finer one). Plain matrix products have a
deterministic forward and backward on every device, unlike the backward of adaptive pooling and
interpolation on CUDA.
"""

import torch
from torch import Tensor

from models.errors import ModelError

HALF = 0.5 - 1e-4  # "at least half": the slack is for the rounding of sums such as 18 x 1/36


def to_grid(maps: Tensor, valid: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize maps; only valid cells count.

    Towards a coarser grid each cell is the area-weighted average of its valid cells, towards a
    finer one the bilinear interpolation of the valid neighbours (their weights rescaled to one).

    Args:
        maps: (M, h, w, D). Values in invalid cells have no influence, even if NaN.
        valid: (M, h, w) bool.
        grid: Rows and columns (i, j) of the result.

    Returns:
        Maps (M, i, j, D), zero in invalid cells, and their validity (M, i, j) bool as of
        ``cell_validity``.

    Raises:
        ModelError: The shapes of maps and validity differ.
    """
    height, width = valid.shape[-2:]
    if maps.shape[:-1] != valid.shape:
        raise ModelError(
            f"to_grid: expected valid of shape {tuple(maps.shape[:-1])}, found "
            f"{tuple(valid.shape)}; pass one flag a cell"
        )
    maps = maps.where(valid[..., None], maps.new_zeros(()))  # M h w D
    if (height, width) == tuple(grid):
        return maps, valid
    rows = resize_matrix(height, grid[0], maps.device)  # i h
    columns = resize_matrix(width, grid[1], maps.device)  # j w
    total = _apply(rows.to(maps.dtype), columns.to(maps.dtype), maps)  # M i j D
    weight = _apply(rows, columns, valid[..., None].float())  # M i j 1
    resized_valid = cell_validity(valid, grid)  # M i j
    # A valid cell has a weight of at least 1/2 (coarser) or 1/4 (finer: its nearest neighbour),
    # never zero.
    scale = weight.where(resized_valid[..., None], weight.new_ones(()))  # M i j 1
    resized = total / scale.to(maps.dtype)  # M i j D
    return resized.where(resized_valid[..., None], maps.new_zeros(())), resized_valid


def cell_validity(valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """Validity of the cells of a grid, from that on another grid of the same view.

    Along a coarser grid a cell is valid if at least half of its area is. Along a finer one it is
    valid if the cell that it lies in is.

    Args:
        valid: (..., h, w) bool, for example on the 10 m grid.
        grid: Rows and columns (i, j) of the result.

    Returns:
        (..., i, j) bool.
    """
    height, width = valid.shape[-2:]
    if (height, width) == tuple(grid):
        return valid
    rows = _cover_matrix(height, grid[0], valid.device)  # i h
    columns = _cover_matrix(width, grid[1], valid.device)  # j w
    return _apply(rows, columns, valid[..., None].float())[..., 0] >= HALF


def resize_matrix(size: int, side: int, device: torch.device | None = None) -> Tensor:
    """Weights (side, size) float32 of ``size`` cells in each of ``side`` cells over one length.

    Rows sum to one. Coarser: the share of the target cell that each source cell covers. Finer:
    linear interpolation between the source centres, with the border cells extended outwards.
    """
    if side <= size:
        return _overlap(size, side, device)
    centre = (torch.arange(side, device=device) + 0.5) * (size / side) - 0.5  # i, in source cells
    centre = centre.clamp(0, size - 1)
    source = torch.arange(size, device=device)  # h
    return (1 - (centre[:, None] - source).abs()).clamp(min=0)  # i h


def _cover_matrix(size: int, side: int, device: torch.device) -> Tensor:
    """Like ``resize_matrix``, but a finer grid takes the nearest source cell alone."""
    if side <= size:
        return _overlap(size, side, device)
    twice_centre = (2 * torch.arange(side, device=device) + 1) * size  # i, in 1/side source cells
    nearest = twice_centre.div(2 * side, rounding_mode="floor")  # i
    return (nearest[:, None] == torch.arange(size, device=device)).float()  # i h


def _overlap(size: int, side: int, device: torch.device | None) -> Tensor:
    """Share (side, size) of each target cell that each source cell covers; ``side`` <= ``size``."""
    ratio = size / side  # source cells in a target cell
    low = torch.arange(side, device=device)[:, None] * ratio  # i 1
    source = torch.arange(size, device=device)  # h
    end = torch.minimum(low + ratio, source + 1.0)  # i h
    begin = torch.maximum(low, source.to(low.dtype))  # i h
    return (end - begin).clamp(min=0) / ratio  # i h


def _apply(rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    """Multiply along both axes: (i, h), (j, w), (..., h, w, D) -> (..., i, j, D)."""
    x = torch.einsum("ih,...hwd->...iwd", rows, x)
    return torch.einsum("jw,...iwd->...ijd", columns, x)
