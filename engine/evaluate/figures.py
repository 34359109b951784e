"""What features are worth in a few figures, cheap enough for every so many steps of a run.

Effective ranks need no labels. The k-NN takes the neighbours of each item from other groups, such
as other tiles, so that no part of the labelled tiles is lost.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from data.tiles.splits import TRAIN
from engine.evaluate.features import Extracted
from engine.evaluate.items import Items, cell_items
from engine.evaluate.knn import vote
from engine.evaluate.measures import plain
from engine.evaluate.probing import measures
from models.features import FUSED

NEIGHBOURS = (10, 20, 100, 200)
ROUNDING = 1e-6  # spread of float32 features, relative to their size, that is rounding alone


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli, 2007).

    Args:
        features: (S, D), which are centred here.

    Returns:
        1 for collapsed features, at most min(S - 1, D). A spread as small as the rounding of
        float32 counts as collapse.
    """
    exact = features.double()  # before centring, which would round
    values = torch.linalg.svdvals(exact - exact.mean(0))
    if values.sum() <= ROUNDING * exact.norm():
        return 1.0
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def effective_ranks(extracted: Extracted) -> dict[str, float | None]:
    """Effective rank by feature, of those that two tiles have at least; None if not finite."""
    ranks: dict[str, float | None] = {}
    for name, vectors in extracted.vectors.items():
        present = vectors[extracted.present[name]]  # n D
        if len(present) < 2:
            continue
        ranks[name] = None
        if present.isfinite().all():
            ranks[name] = effective_rank(present)
    return ranks


def report_figures(extracted: Extracted, classes: Sequence[str]) -> dict:
    """Effective ranks, and k-NN accuracies of the fused cells, as one JSON object.

    Args:
        extracted: vectors of all features and cells of the fused one.
        classes: names of the dataset's classes.
    """
    labelled = int((extracted.labels >= 0).flatten(1).any(1).sum())
    figures: dict[str, Any] = {
        "samples": len(extracted.keys),
        "samples_of": {name: int(mask.sum()) for name, mask in extracted.present.items()},
        "effective_rank": effective_ranks(extracted),
        "labelled_cells": int((extracted.labels >= 0).sum()),
        "labelled_tiles": labelled,
    }
    if labelled >= 2:
        splits = [TRAIN] * len(extracted.keys)
        items = cell_items(extracted.labels, classes, groups=extracted.keys, splits=splits)
        features = items.rows(extracted.vectors[FUSED], extracted.cells[FUSED])  # N D
        neighbours = [k for k in NEIGHBOURS if k < len(items)] or NEIGHBOURS[:1]
        figures["knn"] = {str(k): value for k, value in accuracies(features, items, neighbours)}
        figures["commonest_class"] = float(items.targets.mean(0).max())
    return figures


def first_measure(features: Tensor, items: Items, k: int) -> float:
    """The first measure of the items' kind by k-NN among the other groups.

    NaN for features that are not finite.
    """
    if not features.isfinite().all():
        return math.nan
    scores = _votes(features, items, (k,))[k]  # N K
    rows = torch.arange(len(items))
    first = next(iter(measures(items, rows, scores, rows).values()))
    return plain(first, len(items))


def _votes(features: Tensor, items: Items, neighbours: Sequence[int]) -> dict[int, Tensor]:
    """The votes of items of other groups: k -> N K."""
    groups = (items.groups, items.groups)
    return vote(features, items.targets, features, neighbours=tuple(neighbours), groups=groups)


def accuracies(
    features: Tensor, items: Items, neighbours: Sequence[int]
) -> list[tuple[int, float | None]]:
    """Share of items whose neighbours of other groups vote for their class, by k."""
    if not features.isfinite().all():
        return [(k, None) for k in neighbours]
    votes = _votes(features, items, neighbours)
    truth = items.targets.argmax(1)  # N
    return [(k, float((share.argmax(1) == truth).float().mean())) for k, share in votes.items()]
