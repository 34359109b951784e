"""What features are worth without any training on top: effective rank and weighted k-NN.

k-NN as in DINO: cosine similarity of L2-normalised features, votes weighted by
exp(similarity / 0.07).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import InputError
from engine.evaluate.features import Extracted

TEMPERATURE = 0.07
NEIGHBOURS = (10, 20, 100, 200)
ROUNDING = 1e-6  # spread of float32 features, relative to their size, that is rounding alone
ROWS = 1024  # of the similarity matrix at once


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


def knn(features: Tensor, labels: Tensor, groups: Tensor, *, k: int, classes: int) -> float:
    """Accuracy of weighted k-NN, each entry judged by the entries of other groups only.

    Args:
        features: (N, D).
        labels: (N,) int64.
        groups: (N,) int64, here the tile, so that neighbours on the ground do not vote.
        k: neighbours, cut to what there is.
        classes: K.

    Raises:
        InputError: the numbers of rows differ, or there are fewer than two groups.
    """
    if features.ndim != 2 or labels.shape != (len(features),) or groups.shape != labels.shape:
        raise InputError(
            f"knn: expected features of N x D, labels and groups of N, found shapes "
            f"{tuple(features.shape)}, {tuple(labels.shape)} and {tuple(groups.shape)}"
        )
    if len(groups.unique()) < 2:
        raise InputError(
            "knn: expected labelled cells of at least two tiles, found one; label more tiles"
        )
    unit = F.normalize(features.float(), dim=-1)  # N D
    correct = 0
    for rows in torch.arange(len(labels)).split(ROWS):
        similarity = unit[rows] @ unit.T  # n N
        same_group = groups[rows][:, None] == groups[None]  # n N
        similarity = similarity.masked_fill(same_group, -torch.inf)
        near, index = similarity.topk(min(k, len(labels) - 1), dim=1)  # n k
        weight = (near / TEMPERATURE).exp()  # n k, 0 for the own group
        votes = torch.zeros(len(rows), classes).scatter_add_(1, labels[index], weight)  # n K
        correct += int((votes.argmax(1) == labels[rows]).sum())
    return correct / len(labels)


def evaluate(extracted: Extracted, classes: int) -> dict:
    """Effective ranks and k-NN accuracies as one JSON object.

    Features that are not finite have None for both.
    """
    labelled = extracted.labels >= 0  # S G
    numbers = torch.arange(len(extracted.keys))  # S
    labels = extracted.labels[labelled]  # N
    tiles = numbers[:, None].expand_as(extracted.labels)[labelled]  # N
    tile_count = len(tiles.unique())
    result = {
        "samples": len(extracted.keys),
        "samples_of": {name: int(mask.sum()) for name, mask in extracted.present.items()},
        "effective_rank": _effective_ranks(extracted),
        "labelled_cells": len(labels),
        "labelled_tiles": tile_count,
    }
    if tile_count >= 2:
        features = extracted.cells[labelled]  # N D
        result["knn"] = _knn_accuracies(features, labels, tiles, classes)
        result["commonest_class"] = float((labels == labels.mode().values).float().mean())
    return result


def _effective_ranks(extracted: Extracted) -> dict[str, float | None]:
    """Effective rank by feature, of those that two samples have at least."""
    ranks: dict[str, float | None] = {}
    for name, vectors in extracted.vectors.items():
        present = vectors[extracted.present[name]]  # n D
        if len(present) < 2:
            continue
        ranks[name] = None
        if present.isfinite().all():
            ranks[name] = effective_rank(present)
    return ranks


def _knn_accuracies(
    features: Tensor, labels: Tensor, tiles: Tensor, classes: int
) -> dict[str, float | None]:
    """Accuracy by number of neighbours; None for features that are not finite."""
    finite = bool(features.isfinite().all())
    accuracies: dict[str, float | None] = {}
    for k in NEIGHBOURS:
        if k >= len(labels) and k != NEIGHBOURS[0]:
            continue
        accuracies[str(k)] = None
        if finite:
            accuracies[str(k)] = knn(features, labels, tiles, k=k, classes=classes)
    return accuracies
