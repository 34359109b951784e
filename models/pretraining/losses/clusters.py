"""Clusters of the cells of a map by their features (the objects of equation 3)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fusion.grids import resize_matrix
from models.fusion.sinkhorn import sinkhorn_many

ROUNDS = 3  # times that the seeds of the clusters move to the cells assigned to them


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
    seeds = _seed_matrix(height, width, clusters=clusters, device=features.device)  # C n
    shares = _assign(features, mask, seeds, spec)  # ... n C
    total = shares.sum(dim=-2, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)  # ... 1 C
    return (shares / total).mT  # ... C n


@torch.no_grad()
def _assign(features: Tensor, mask: Tensor, seed_matrix: Tensor, spec: ClusterSpec) -> Tensor:
    """Shares (..., n, C) of the cells in the clusters; features are zero where masked."""
    directions = F.normalize(features, dim=-1)  # ... n D
    seeds = F.normalize(seed_matrix @ features, dim=-1)  # ... C D
    shares = sinkhorn_many(
        directions @ seeds.mT, mask, epsilon=spec.epsilon, iterations=spec.iterations
    )  # ... n C
    for _ in range(ROUNDS):
        seeds = F.normalize(shares.mT @ features, dim=-1)  # ... C D
        shares = sinkhorn_many(
            directions @ seeds.mT, mask, epsilon=spec.epsilon, iterations=spec.iterations
        )
    return shares


def _seed_matrix(height: int, width: int, *, clusters: int, device: torch.device) -> Tensor:
    """Weights (C, n) that pool a grid to evenly spaced seeds.

    The seeds form rows x columns = C, as square as C allows.
    """
    rows = math.isqrt(clusters)
    while clusters % rows:
        rows -= 1
    columns = clusters // rows
    return torch.kron(resize_matrix(height, rows, device), resize_matrix(width, columns, device))
