"""Labelled tiles in batches of one shape, each once, in the order of the dataset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import InputError
from data.stream.decode import Source
from data.stream.settings import DataSettings
from data.stream.whole_tile import ModelInput, WholeTile, empty_tile, read_whole_tile
from data.stream.workers import on_workers

BATCH = 16
NO_LABEL = -1


@dataclass
class TileBatch:
    """B tiles. The last of a dataset is filled up with empty ones, whose key is ""."""

    keys: list[str]
    images: dict[str, Tensor]  # sensor -> B T C H W float32, normalised, zero where invalid
    valid: dict[str, Tensor]  # sensor -> B T H W bool
    days: dict[str, Tensor]  # sensor -> B T int64
    region: Tensor  # B int64
    labels: Tensor  # B g g int64, commonest class of each cell, NO_LABEL where there is none
    problems: dict[int, str]  # number in the dataset -> why the tile cannot be read

    def to(self, device: torch.device, dtype: torch.dtype) -> "TileBatch":
        """The batch on a device, its images in the type that a model computes in."""
        images = {name: x.to(device, dtype, non_blocking=True) for name, x in self.images.items()}
        return TileBatch(
            keys=self.keys,
            images=images,
            valid=_moved(self.valid, device),
            days=_moved(self.days, device),
            region=self.region.to(device, non_blocking=True),
            labels=self.labels,
            problems=self.problems,
        )


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Tiles:
    """Some samples of a dataset, as a model sees them."""

    dataset: Source
    samples: Sequence[int]
    inputs: ModelInput
    grid: int  # g, rows and columns of the label cells
    classes: int  # K of the dataset's own labels
    batch_size: int = BATCH
    workers: int = 0
    batches: int = 0  # at least so many, of which the last ones may be empty

    def __iter__(self) -> Iterator[TileBatch]:
        needed = -(-len(self.samples) // self.batch_size)
        return on_workers(
            self.batch,
            range(max(needed, self.batches)),
            count=self.workers,
            ahead=DataSettings.prefetch,
            patience=DataSettings.loader_patience,
        )

    def batch(self, number: int) -> TileBatch:
        """One batch by its number."""
        first = number * self.batch_size
        read = []
        problems = {}
        for sample in self.samples[first : first + self.batch_size]:
            try:
                read.append(read_whole_tile(self.dataset, sample, self.inputs))
            except InputError as error:
                problems[sample] = str(error)
        while len(read) < self.batch_size:
            read.append(empty_tile(self.inputs.shape))
        return collate(read, grid=self.grid, classes=self.classes, problems=problems)


def collate(
    tiles: Sequence[WholeTile], *, grid: int, classes: int, problems: dict[int, str]
) -> TileBatch:
    """A batch of tiles that were read in one shape.

    Args:
        tiles: B of them.
        grid: g.
        classes: K.
        problems: samples that could not be read.
    """
    labels = [cell_labels(tile, side=grid, classes=classes) for tile in tiles]
    return TileBatch(
        keys=[tile.key for tile in tiles],
        images=_stacked([tile.images for tile in tiles]),
        valid=_stacked([tile.valid for tile in tiles]),
        days=_stacked([tile.days for tile in tiles]),
        region=torch.tensor([tile.region for tile in tiles]),
        labels=torch.stack(labels),
        problems=problems,
    )


def _stacked(tiles: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sensor -> the tensors of all tiles along a new first axis."""
    return {name: torch.stack([tile[name] for tile in tiles]) for name in tiles[0]}


def cell_labels(tile: WholeTile, *, side: int, classes: int) -> Tensor:
    """Commonest class of each cell: (side, side) int64, NO_LABEL without one or out of sight."""
    seen = torch.zeros(side, side, dtype=torch.bool)
    for valid in tile.valid.values():
        share = F.adaptive_avg_pool2d(valid.any(0)[None].float(), side)[0]  # side side
        seen |= share >= 0.5
    if tile.labels is None:
        return torch.full((side, side), NO_LABEL)
    return majority(tile.labels[None], side=side, classes=classes)[0].where(seen, NO_LABEL)


def majority(labels: Tensor, *, side: int, classes: int) -> Tensor:
    """Commonest class of each cell of a side x side grid.

    Args:
        labels: (B, L, L) int64, -1 for no label.
        side: of the grid.
        classes: K.

    Returns:
        (B, side, side) int64, -1 in cells without a label.
    """
    one_hot = F.one_hot(labels + 1, classes + 1)[..., 1:].float().permute(0, 3, 1, 2)  # B K L L
    share = F.adaptive_avg_pool2d(one_hot, side)  # B K side side
    return share.argmax(1).where(share.amax(1) > 0, NO_LABEL)
