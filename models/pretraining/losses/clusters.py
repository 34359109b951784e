"""Clusters of the cells of a map by their features (the objects of equation 3)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fusion.sinkhorn import sinkhorn_many

ROUNDS = 3  # times that the seeds of the clusters move to the cells assigned to them
# Deviations shorter than this share of a feature are rounding: the cells are one kind of ground.
FLAT = 1e-4


@dataclass(frozen=True)
class ClusterSpec:
    """Settings of the clustering."""

    clusters: int  # at most
    epsilon: float  # of Sinkhorn-Knopp
    iterations: int  # of Sinkhorn-Knopp


def cluster_count(clusters: int, cells: int) -> int:
    """Clusters of a map: ``clusters``, or a quarter of its cells if that is less."""
    return min(clusters, max(1, cells // 4))


def cluster(features: Tensor, mask: Tensor, *, grid: tuple[int, int], spec: ClusterSpec) -> Tensor:
    """Cluster the cells of many maps. No gradient flows through the assignment.

    Cells are compared by their deviations from the mean of the map. The cells of a fused map share
    a long vector: by their features as they are, all would be alike and every cluster the mean.

    Args:
        features: (..., n, D), zero where masked.
        mask: (..., n) bool.
        grid: rows and columns of the n cells.
        spec: settings.

    Returns:
        (..., C, n) weight of each cell in each cluster; the weights of a cluster sum to one.
    """
    height, width = grid
    clusters = cluster_count(spec.clusters, height * width)
    seeds = _seed_weights(mask, height, width, clusters=clusters).to(features.dtype)  # ... C n
    shares = _assign(features, mask, seeds, spec)  # ... n C
    total = shares.sum(dim=-2, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)  # ... 1 C
    return (shares / total).mT  # ... C n


@torch.no_grad()
def spread(features: Tensor, mask: Tensor, clusters: Tensor, counted: Tensor) -> Tensor:
    """Share of the variance of a map's cells that lies between its clusters.

    Near 0 all clusters of a map are its mean, and tell no more than the whole map.

    Args:
        features: (..., n, D), zero where masked.
        mask: (..., n) bool.
        clusters: (..., C, D), means of the cells by the weights of ``cluster``.
        counted: (...) bool. Maps with one cluster or without variance do not count either.

    Returns:
        (2,): sum over the maps that count, and their number.
    """
    cells = mask.sum(dim=-1).clamp(min=1)  # ...
    squares = _deviations(features, mask).square().sum(dim=-1)  # ... n
    total = squares.sum(dim=-1) / cells  # ...
    between = clusters.var(dim=-2, correction=0).sum(dim=-1)  # ...
    counted = counted & (total > 0) & (clusters.shape[-2] > 1)
    shares = (between / total.where(counted, 1.0)).where(counted, 0.0)  # ...
    return torch.stack([shares.sum(), counted.sum()])


@torch.no_grad()
def _assign(features: Tensor, mask: Tensor, weights: Tensor, spec: ClusterSpec) -> Tensor:
    """Shares (..., n, C) of the cells in the clusters; features are zero where masked.

    ``weights`` (..., C, n) are those of the cells in the first seeds.
    """
    deviations = _deviations(features, mask)  # ... n D
    length = _lengths(deviations, features)  # ... n 1
    for _ in range(1 + ROUNDS):
        seeds = F.normalize(weights @ deviations, dim=-1)  # ... C D
        cosines = deviations @ seeds.mT / length  # ... n C
        shares = sinkhorn_many(
            cosines, mask, epsilon=spec.epsilon, iterations=spec.iterations
        )  # ... n C
        weights = shares.mT  # ... C n
    return shares


def _deviations(features: Tensor, mask: Tensor) -> Tensor:
    """Cells (..., n, D) less the mean of the valid cells of their map, zero where masked."""
    count = mask.sum(dim=-1).clamp(min=1)[..., None, None]  # ... 1 1
    mean = features.sum(dim=-2, keepdim=True) / count  # ... 1 D
    return (features - mean).where(mask[..., None], 0.0)  # ... n D


def _lengths(deviations: Tensor, features: Tensor) -> Tensor:
    """Lengths (..., n, 1) to divide cosines by; so long that those of a flat map are near zero."""
    longest = features.norm(dim=-1).amax(dim=-1)[..., None, None]  # ... 1 1
    least = (FLAT * longest).clamp(min=torch.finfo(features.dtype).tiny)  # ... 1 1
    return deviations.norm(dim=-1, keepdim=True).maximum(least)  # ... n 1


def _seed_weights(mask: Tensor, height: int, width: int, *, clusters: int) -> Tensor:
    """Parts of a grid with equally many valid cells, one a seed: (..., C, n) bool.

    The grid is gone through block by block; the blocks form rows x columns = C, as square as C
    allows. With all cells valid and sides that divide, the parts are the blocks. A block without
    valid cells, or with all of them, would have no deviation from the mean to start from.
    """
    rows = math.isqrt(clusters)
    while clusters % rows:
        rows -= 1
    columns = clusters // rows
    device = mask.device
    # the block that a cell's centre lies in
    row = (2 * torch.arange(height, device=device) + 1) * rows // (2 * height)  # height
    column = (2 * torch.arange(width, device=device) + 1) * columns // (2 * width)  # width
    block = (row[:, None] * columns + column).flatten()  # n
    order = block.argsort(stable=True)  # n
    valid = mask[..., order]  # ... n
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1)  # ... 1
    part = (valid.cumsum(dim=-1) - 1) * clusters // count  # ... n
    number = torch.arange(clusters, device=device)[:, None]  # C 1
    members = (part[..., None, :] == number) & valid[..., None, :]  # ... C n
    return members[..., order.argsort()]
