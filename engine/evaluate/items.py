"""What is classified: whole tiles or their labelled cells, with classes, groups and parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data.errors import InputError
from data.seeded import generator
from data.tiles.splits import TEST, TRAIN, VALIDATION

Kind = Literal["classification", "multi-label", "segmentation"]
CLASSIFICATION: Kind = "classification"
MULTI_LABEL: Kind = "multi-label"
SEGMENTATION: Kind = "segmentation"
VALIDATION_SHARE = 0.2  # of the groups of the train part, where nobody has named a validation part


@dataclass(frozen=True)
class Parts:
    """Numbers of the items of each part, ascending."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def __str__(self) -> str:
        counts = (len(self.train), len(self.validation), len(self.test))
        return "{} train, {} validation, {} test".format(*counts)


@dataclass(frozen=True)
class Items:
    """N items of S tiles."""

    kind: Kind
    classes: list[str]  # K
    tiles: Tensor  # N int64, the tile of each item
    cells: Tensor | None  # N int64, the cell of each item in its tile; None: items are tiles
    targets: Tensor  # N K float32, one where an item has a class
    groups: Tensor  # N int64, from 0
    splits: list[str]  # of each of the S tiles

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def group_count(self) -> int:
        """Different groups."""
        return int(self.groups.max()) + 1

    @property
    def commonest(self) -> int:
        """The class that most items have."""
        return int(self.targets.sum(0).argmax())

    def rows(self, vectors: Tensor, cells: Tensor | None) -> Tensor:
        """The features of the items, from those of the tiles (S, D) or of their cells (S, g, g, D).

        Returns:
            (N, D).
        """
        if self.cells is None or cells is None:
            return vectors[self.tiles]
        return cells.flatten(1, 2)[self.tiles, self.cells]


def tile_items(
    names: Sequence[tuple[str, ...]],
    classes: list[str],
    *,
    several: bool,
    groups: Sequence[str],
    splits: list[str],
) -> Items:
    """One item a tile.

    Args:
        names: the classes of each of the S tiles.
        classes: all of them.
        several: whether a tile may have any number of them.
        groups: of each tile.
        splits: of each tile.
    """
    targets = torch.zeros(len(names), len(classes))  # S K
    for row, own in enumerate(names):
        for name in own:
            targets[row, classes.index(name)] = 1
    kind = CLASSIFICATION
    if several:
        kind = MULTI_LABEL
    return Items(
        kind=kind,
        classes=classes,
        tiles=torch.arange(len(names)),
        cells=None,
        targets=targets,
        groups=numbered(groups),
        splits=splits,
    )


def cell_items(
    labels: Tensor, classes: Sequence[str], *, groups: Sequence[str], splits: list[str]
) -> Items:
    """One item for every cell with a label.

    Args:
        labels: (S, g, g) int64, -1 for none.
        classes: of the dataset; those that no cell has are left out.
        groups: of each tile.
        splits: of each tile.

    Raises:
        InputError: no cell has a label.
    """
    flat = labels.flatten(1)  # S G
    tiles, cells = (flat >= 0).nonzero(as_tuple=True)  # N, N
    if len(tiles) == 0:
        raise InputError(
            "evaluate: expected labels, found none in the shards; give a CSV file with --labels"
        )
    used, numbers = flat[tiles, cells].unique(return_inverse=True)  # K, N
    return Items(
        kind=SEGMENTATION,
        classes=[classes[int(number)] for number in used],
        tiles=tiles,
        cells=cells,
        targets=torch.eye(len(used))[numbers],
        groups=numbered(groups)[tiles],
        splits=splits,
    )


def numbered(groups: Sequence[str]) -> Tensor:
    """Groups as numbers from 0, in the order of their names: (S,) int64."""
    _, numbers = np.unique(np.array(groups), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64))


def parts(items: Items, seed: int, *, folds: int) -> list[Parts]:
    """The parts of one seed, one for each fold.

    A group is on one side. With folds every item is tested once, and the splits do not count.

    Args:
        items: what to divide.
        seed: of the folds, and of the validation part where nobody has named one.
        folds: F; 0: the test part is the one that the splits name.

    Raises:
        InputError: a part would be empty.
    """
    if folds:
        rng = generator("folds", seed, items.group_count)
        fold = torch.from_numpy(rng.permutation(items.group_count) % folds)[items.groups]  # N
        divided = []
        for number in range(folds):
            test = fold == number  # N
            divided.append(_divided(items, test, _drawn(items, ~test, seed), train=~test))
        return divided
    of_item = np.array(items.splits)[items.tiles.numpy()]  # N
    test = torch.from_numpy(of_item == TEST)  # N
    validation = torch.from_numpy(of_item == VALIDATION)  # N
    train = torch.from_numpy(of_item == TRAIN)  # N
    if not validation.any():
        validation = _drawn(items, train, seed)
    return [_divided(items, test, validation, train=train)]


def _drawn(items: Items, train: Tensor, seed: int) -> Tensor:
    """A fifth of the groups of the train part: N bool."""
    groups = items.groups[train].unique()  # U
    rng = generator("validation", seed, len(groups))
    count = max(1, round(VALIDATION_SHARE * len(groups)))
    chosen = groups[torch.from_numpy(rng.permutation(len(groups))[:count])]
    return train & torch.isin(items.groups, chosen)


def _divided(items: Items, test: Tensor, validation: Tensor, *, train: Tensor) -> Parts:
    """Parts of masks (N,), of which validation wins over train."""
    masks = (train & ~validation, validation, test)
    divided = Parts(*[mask.nonzero()[:, 0] for mask in masks])
    if min(map(len, (divided.train, divided.validation, divided.test))) == 0:
        raise InputError(
            f"evaluate: expected items in every part, found {divided} of {len(items)}; name the "
            f"splits in --labels, or divide {items.group_count} groups with --folds"
        )
    return divided
