"""Clusters of the cells of a map: what they see of a common vector, and how far they differ."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.pretraining.losses.clusters import ClusterSpec, cluster, spread

SPEC = ClusterSpec(clusters=4, epsilon=0.05, iterations=3)
SIDE = 8
WIDTH = 24


def cells(maps=3, seed=0):
    """Maps of four kinds of ground in quarters, with noise: (maps, n, D)."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(maps, 4, WIDTH, generator=generator)
    half = torch.arange(SIDE) >= SIDE // 2
    kind = (2 * half[:, None] + half).flatten()  # n
    return kinds[:, kind] + 0.3 * torch.randn(maps, SIDE * SIDE, WIDTH, generator=generator)


def shares_of(features, mask=None):
    """Weights (maps, C, n)."""
    if mask is None:
        mask = torch.ones(features.shape[:-1], dtype=torch.bool)
    return cluster(features, mask, grid=(SIDE, SIDE), spec=SPEC)


def mean_cosine(vectors):
    """Mean over the pairs of vectors (..., C, D)."""
    directions = F.normalize(vectors, dim=-1)
    count = vectors.shape[-2]
    return (directions.sum(-2).square().sum(-1) - count) / (count * (count - 1))


@pytest.mark.parametrize("cosine", [0.5, 0.9, 0.97, 0.9999])
def test_a_common_vector_does_not_make_all_clusters_the_mean(cosine):
    features = cells()
    own = (features - features.mean(1, keepdim=True)).norm(dim=-1).square().mean().sqrt()
    common = torch.full((WIDTH,), float(own) * math.sqrt(cosine / (1 - cosine) / WIDTH))
    moved = features - features.mean(1, keepdim=True) + common
    assert mean_cosine(moved).mean() == pytest.approx(cosine, abs=0.03)
    shares = shares_of(moved)
    torch.testing.assert_close(shares, shares_of(features), rtol=0, atol=5e-3)
    clusters = shares @ moved
    assert (mean_cosine(clusters - clusters.mean(1, keepdim=True)) < -0.3).all()
    total, count = spread(
        moved, torch.ones(3, SIDE**2, dtype=torch.bool), clusters, torch.ones(3).bool()
    )
    assert total / count > 0.85 and count == 3


def test_spread_is_the_share_of_variance_between_clusters():
    features = cells().double()
    generator = torch.Generator().manual_seed(4)
    mask = torch.rand(3, SIDE * SIDE, generator=generator) < 0.8
    features = features.where(mask[..., None], 0.0)
    weights = torch.rand(3, 4, SIDE * SIDE, generator=generator, dtype=torch.float64)
    weights = weights * mask[:, None]
    clusters = weights @ features / weights.sum(-1, keepdim=True)
    counted = torch.tensor([True, False, True])
    expected = 0.0
    for number in (0, 2):
        own = features[number][mask[number]]
        expected += clusters[number].var(0, correction=0).sum() / own.var(0, correction=0).sum()
    total, count = spread(features, mask, clusters, counted)
    torch.testing.assert_close(total, expected)
    assert count == 2


def test_maps_of_one_kind_of_ground_have_even_clusters_and_no_spread():
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(3, 1, WIDTH, generator=generator).expand(-1, SIDE * SIDE, -1)
    mask = torch.ones(3, SIDE * SIDE, dtype=torch.bool)
    torch.testing.assert_close(
        shares_of(flat), torch.full((3, 4, SIDE**2), 1 / SIDE**2), rtol=0.05, atol=0
    )
    zero = torch.zeros(3, SIDE * SIDE, WIDTH)
    total, count = spread(zero, mask, shares_of(zero) @ zero, torch.ones(3, dtype=torch.bool))
    assert total == 0 and count == 0


def test_masked_cells_do_not_move_the_mean():
    features = cells()
    mask = torch.rand(3, SIDE * SIDE, generator=torch.Generator().manual_seed(1)) < 0.6
    common = torch.full((WIDTH,), 50.0)
    plain = shares_of(features.where(mask[..., None], 0.0), mask)
    moved = shares_of((features + common).where(mask[..., None], 0.0), mask)
    torch.testing.assert_close(moved, plain, rtol=0, atol=5e-3)
    assert (moved.mT[~mask] == 0).all()


@pytest.mark.parametrize("corner", [slice(0, 3), slice(5, 8), slice(0, 8)])
def test_rounding_does_not_choose_the_clusters(corner):
    """Views that share a corner have all their matched cells in one block of the grid."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[corner, corner] = True
    mask = mask.flatten().expand(20, -1)
    generator = torch.Generator().manual_seed(5)
    features = (cells(maps=20) + 10).where(mask[..., None], 0.0)
    noise = 1e-6 * torch.randn(features.shape, generator=generator)
    shares = shares_of(features, mask)
    torch.testing.assert_close(shares_of(features * (1 + noise), mask), shares, rtol=0, atol=1e-3)
    total, count = spread(features, mask, shares @ features, torch.ones(20, dtype=torch.bool))
    assert total / count > 0.3
