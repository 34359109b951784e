"""Sums by region against loops, and one rank against several."""

import numpy as np
import pytest
import torch

from models.fusion.region_groups import RegionGroups
from models.reducer import Reducer
from tests.unit.ranks import run_ranks

REGION = torch.tensor([7, -1, 3, 7, 3, 0, -1, 7])


def values(scale=1.0):
    return scale * torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0))


def same_region(sample):
    return (REGION[sample] == REGION).nonzero().flatten()


def test_sums_equal_loops():
    groups = RegionGroups.gather(REGION, Reducer())
    found = groups.sum(values())
    assert groups.region.tolist() == [-1, 0, 3, 7, -1, -1, -1, -1]
    assert groups.lengths.tolist() == [2, 1, 2, 3, 0, 0, 0, 0]
    for sample in range(8):
        expected = values()[same_region(sample)].double().sum(0)
        np.testing.assert_allclose(found[groups.own[sample]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_logarithms_of_sums_equal_loops(scale):
    found = RegionGroups.gather(REGION, Reducer()).log_sum(values(scale))
    for sample in range(8):
        expected = values(scale)[same_region(sample)].double().logsumexp(0)
        np.testing.assert_allclose(found[sample], expected, rtol=1e-5, atol=1e-5)


def test_empty_sums_stay_minus_infinity():
    empty = torch.full((8, 2), -torch.inf)
    assert torch.equal(RegionGroups.gather(REGION, Reducer()).log_sum(empty), empty)


def test_values_that_are_not_finite_stay_in_their_region():
    spoilt = values()
    spoilt[2] = torch.nan
    groups = RegionGroups.gather(REGION, Reducer())
    for found in (groups.sum(spoilt)[groups.own], groups.log_sum(spoilt)):
        assert torch.equal(found.isnan().flatten(1).all(1), REGION == 3)
        assert torch.equal(found.isnan().flatten(1).any(1), REGION == 3)


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_see_the_sums_of_the_global_batch(world_size):
    groups = RegionGroups.gather(REGION, Reducer())
    share = 8 // world_size

    def work(rank, reducer):
        own = slice(rank * share, (rank + 1) * share)
        groups = RegionGroups.gather(REGION[own], reducer)
        return groups.sum(values()[own])[groups.own], groups.log_sum(values()[own])

    for place, expected in enumerate((groups.sum(values())[groups.own], groups.log_sum(values()))):
        found = torch.cat([result[place] for result in run_ranks(world_size, work)])
        assert torch.equal(found, expected)  # the order of a sum is the batch's
