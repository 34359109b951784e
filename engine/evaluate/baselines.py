"""What plain pixels say of a tile: their statistics, and their principal components."""

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.evaluate.features import Described, Maps
from engine.evaluate.tiles import TileBatch

STATISTICS = "statistics"
PIXELS = "pixels"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_PIXELS = 128  # a side, from which statistics of a tile are taken; of larger ones every n-th
SIDE = 16  # of the picture whose pixels are the features of a tile
CELL_SIDE = 4  # of the picture of a cell
COMPONENTS = 64
FITTED = 2048  # rows from which components are found, at most


class PixelFeatures:
    """Statistics and pixels of all sensors together, by the names ``STATISTICS``, ``PIXELS``."""

    def __init__(self, grid: int | None = None):
        """Take g, the side of the grid of cells; None: vectors alone."""
        self.grid = grid

    @torch.no_grad()
    def __call__(self, batch: TileBatch) -> Described:
        """Describe the tiles of a batch."""
        statistics = []
        pictures = []
        cell_statistics = []
        cell_pictures = []
        present = torch.zeros(len(batch.keys), dtype=torch.bool)  # B
        for name, images in batch.images.items():
            valid = batch.valid[name]  # B T H W
            present |= valid.flatten(1).any(1)
            statistics.append(_statistics(images, valid))
            pixels = Maps(images.movedim(2, -1), valid)  # B T H W C
            side = min(SIDE, images.shape[-1])
            pictures.append(pixels.on_grid(side).flatten(1))  # B sidesideC
            if self.grid is not None:
                cell_statistics.append(_moments(pixels, self.grid))
                cell_pictures.append(_patches(pixels, self.grid))
        described = Described()
        described.add(STATISTICS, torch.cat(statistics, 1), present, _joined(cell_statistics))
        described.add(PIXELS, torch.cat(pictures, 1), present, _joined(cell_pictures))
        return described


def _joined(parts: list[Tensor]) -> Tensor | None:
    """Features of the cells of all sensors, None where none are wanted."""
    if not parts:
        return None
    return torch.cat(parts, -1)


def _statistics(images: Tensor, valid: Tensor) -> Tensor:
    """Mean, deviation and quantiles of every band over valid pixels and frames.

    Args:
        images: B T C H W, zero where invalid.
        valid: B T H W bool.

    Returns:
        (B, 7 C), zero without any valid pixel.
    """
    stride = -(-images.shape[-1] // MOST_PIXELS)
    mask = valid[:, :, ::stride, ::stride]  # B T h w
    thinned = images[:, :, :, ::stride, ::stride]  # B T C h w
    values = thinned.masked_fill(~mask[:, :, None], torch.nan).transpose(1, 2).flatten(2)  # B C n
    mean = values.nanmean(2)  # B C
    deviation = (values - mean[..., None]).square().nanmean(2).sqrt()  # B C
    levels = values.nanquantile(values.new_tensor(QUANTILES), dim=2)  # Q B C
    return torch.cat([mean, deviation, *levels], 1).nan_to_num(0.0)


def _moments(pixels: Maps, grid: int) -> Tensor:
    """Mean and deviation of every band in every cell: B g g 2C."""
    mean = pixels.on_grid(grid)  # B g g C
    square = Maps(pixels.values.square(), pixels.valid).on_grid(grid)  # B g g C
    deviation = (square - mean.square()).clamp(min=0).sqrt()  # B g g C
    return torch.cat([mean, deviation], -1)


def _patches(pixels: Maps, grid: int) -> Tensor:
    """The pixels of every cell, CELL_SIDE a side: B g g 16C."""
    fine = pixels.on_grid(CELL_SIDE * grid)  # B 4g 4g C
    split = fine.unflatten(1, (grid, CELL_SIDE)).unflatten(3, (grid, CELL_SIDE))  # B g 4 g 4 C
    return split.transpose(2, 3).flatten(3)  # B g g 16C


def principal_components(fitted: Tensor, rows: Tensor, count: int = COMPONENTS) -> Tensor:
    """Rows in the coordinates of the directions in which others vary most.

    Args:
        fitted: (M, D) rows that say the directions, of which ``FITTED`` evenly spaced ones count.
        rows: (N, D).
        count: directions, cut to min(M - 1, D).

    Returns:
        (N, count) float32.
    """
    step = -(-len(fitted) // FITTED)
    exact = fitted[::step].double()  # m D
    mean = exact.mean(0)  # D
    centred = exact - mean  # m D
    count = max(1, min(count, len(exact) - 1, exact.shape[1]))
    if len(centred) < centred.shape[1]:  # the smaller of the two products
        _, combinations = torch.linalg.eigh(centred @ centred.T)  # m m, ascending
        directions = F.normalize(centred.T @ combinations[:, -count:], dim=0)  # D count
    else:
        _, vectors = torch.linalg.eigh(centred.T @ centred)  # D D, ascending
        directions = vectors[:, -count:]  # D count
    return ((rows.double() - mean) @ directions.flip(1)).float()
