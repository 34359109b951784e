"""Weighted k-NN, without any training: the neighbours vote with exp(cosine / 0.07), as in DINO."""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import InputError

TEMPERATURE = 0.07
NEIGHBOURS = (1, 5, 10, 20, 100, 200)
ROWS = 256  # queries at once


@torch.no_grad()
def vote(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    groups: tuple[Tensor, Tensor] | None = None,
) -> dict[int, Tensor]:
    """The share of the neighbours' votes that each class gets.

    Args:
        bank: (M, D) features of known items.
        labels: (M, K) float, one where an item has a class.
        queries: (N, D).
        neighbours: values of k. One above the size of the bank takes the whole bank.
        groups: of the bank (M,) and of the queries (N,): neighbours of the own group, such as the
            same tile, have no vote.

    Returns:
        k -> (N, K) float32 in [0, 1]: zero where no neighbour may vote.

    Raises:
        InputError: the shapes do not fit each other, or the bank is empty.
    """
    fits = bank.ndim == 2 and queries.shape[1:] == bank.shape[1:]
    if not fits or len(bank) == 0 or labels.shape[:1] != bank.shape[:1]:
        raise InputError(
            f"k-NN: expected a bank of M x D with labels of M x K, and queries of N x D, found "
            f"{tuple(bank.shape)}, {tuple(labels.shape)} and {tuple(queries.shape)}"
        )
    unit = F.normalize(bank.float(), dim=1)  # M D
    scores: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for rows in torch.arange(len(queries)).split(ROWS):
        similarity = F.normalize(queries[rows].float(), dim=1) @ unit.T  # n M
        if groups is not None:
            own = groups[1][rows][:, None] == groups[0][None]  # n M
            similarity = similarity.masked_fill(own, -torch.inf)
        near, index = similarity.topk(min(max(neighbours), len(bank)), dim=1)  # n k
        weights = (near / TEMPERATURE).exp()  # n k, 0 for the own group
        classes = labels.float()[index]  # n k K
        for k in neighbours:
            votes = torch.einsum("nk,nkc->nc", weights[:, :k], classes[:, :k])  # n K
            total = weights[:, :k].sum(1, keepdim=True)  # n 1
            scores[k].append(votes / total.clamp(min=torch.finfo(torch.float32).tiny))
    empty = labels.new_zeros(0, labels.shape[1]).float()
    return {k: torch.cat([empty, *blocks]) for k, blocks in scores.items()}
