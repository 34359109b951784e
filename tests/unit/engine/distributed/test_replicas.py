"""Checksums of bits, and who is wrong if ranks differ."""

import pytest
import torch

from engine.distributed.replicas import RankChecksums, checksum, disagreement


def rank(copies: str = "", shards: str = "", **shared: int) -> RankChecksums:
    """What a rank has found; its host is called after the first thing that is wrong."""
    return RankChecksums("h", copies.split(), shards.split(), {"centre": 1, **shared})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool])
def test_parts_add_up_and_one_element_counts(dtype):
    x = torch.randn(7, 5).to(dtype)
    assert checksum(x[:2]) + checksum(x[2:]) == checksum(x)
    changed = x.clone()
    changed[3, 4] = not x[3, 4]
    assert checksum(changed) != checksum(x)


def test_the_smallest_change_counts():
    x = torch.randn(1000)
    changed = x.clone()
    changed[500] = torch.nextafter(x[500], torch.tensor(torch.inf))
    assert abs(int(checksum(changed) - checksum(x))) == 1


def test_many_negative_elements_do_not_overflow():
    """-0.0 is the smallest integer; a sum of 32 bits would be zero after two."""
    assert int(checksum(torch.full((4,), -0.0))) == -4 * 2**31


def test_a_rank_with_another_weight_is_named():
    error = disagreement([rank(), rank(), rank("w v x")])
    assert (error.rank, error.is_certain) == (2, True)
    assert str(error).startswith("w is not what all ranks had after the last update, nor are 2 ")


def test_a_changed_shard_is_named_though_all_networks_seem_wrong():
    error = disagreement([rank("w"), rank("w", shards="w"), rank("w")])
    assert (error.rank, error.is_certain) == (1, True)
    assert str(error).startswith("its float32 shard of w has changed")


def test_of_shared_things_the_majority_is_right():
    error = disagreement([rank(centre=2), rank(), rank()])
    assert (error.rank, error.is_certain) == (0, True)
    assert str(error).startswith("centre is not what most ranks have")


def test_of_two_ranks_either_may_be_wrong():
    error = disagreement([rank(), rank(centre=2)])
    assert (error.rank, error.is_certain) == (1, False)
    assert str(error).startswith("centre is not what rank 0 on h has; one of the two is wrong")
