"""The vote of neighbours against loops in float64."""

import math

import numpy as np
import pytest
import torch

from data.errors import InputError
from engine.evaluate import knn
from engine.evaluate.knn import vote


def plain_vote(bank, labels, query, k, allowed):
    """The share of the votes of each class, by loops."""
    cosines = {}
    for number in allowed:
        norms = np.linalg.norm(bank[number]) * np.linalg.norm(query)
        cosines[number] = bank[number] @ query / norms
    votes = np.zeros(labels.shape[1])
    total = 0.0
    for number in sorted(cosines, key=cosines.get, reverse=True)[:k]:
        weight = math.exp(cosines[number] / 0.07)
        votes += weight * labels[number]
        total += weight
    return votes / total


@pytest.fixture
def items():
    """60 known items with several labels each, and 9 queries."""
    rng = np.random.default_rng(3)
    labels = rng.random((60, 4)) < 0.3
    bank = rng.normal(size=(60, 8)) + labels @ np.eye(4, 8) * 1.5
    return bank, labels.astype(float), rng.normal(size=(9, 8)) + 0.3


@pytest.mark.parametrize("rows", [2, 256])
def test_the_vote_is_the_formula(monkeypatch, items, rows):
    monkeypatch.setattr(knn, "ROWS", rows)
    bank, labels, queries = items
    shares = vote(*map(torch.from_numpy, (bank, labels, queries)), neighbours=(1, 7, 500))
    for k in (1, 7, 500):
        for share, query in zip(shares[k].numpy(), queries):
            np.testing.assert_allclose(
                share, plain_vote(bank, labels, query, k, range(60)), atol=1e-5
            )


def test_the_own_group_has_no_vote(items):
    bank, labels, _ = items
    groups = np.arange(60) % 3
    everything = torch.from_numpy(bank)
    numbers = torch.from_numpy(groups)
    shares = vote(
        everything,
        torch.from_numpy(labels),
        everything,
        neighbours=(5, 50),
        groups=(numbers, numbers),
    )
    for k in (5, 50):  # 50 is more than the 40 items of other groups
        for number in range(60):
            others = np.flatnonzero(groups != groups[number])
            expected = plain_vote(bank, labels, bank[number], k, others)
            np.testing.assert_allclose(shares[k][number], expected, atol=1e-5)
    alone = vote(
        everything, torch.from_numpy(labels), everything, groups=(numbers * 0, numbers * 0)
    )
    assert not alone[20].any()


def test_shapes_that_do_not_fit_are_refused(items):
    bank, labels, queries = map(torch.from_numpy, items)
    with pytest.raises(InputError, match=r"found \(60, 8\), \(59, 4\) and \(9, 8\)"):
        vote(bank, labels[1:], queries)
    with pytest.raises(InputError, match="k-NN: expected a bank"):
        vote(bank[:0], labels[:0], queries)
