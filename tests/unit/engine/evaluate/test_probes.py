"""The probes against plain numpy and loops."""

import json
import math

import numpy as np
import pytest
import torch

from data.errors import InputError
from engine.evaluate import probes
from engine.evaluate.features import Extracted
from engine.evaluate.probes import effective_rank, evaluate, knn


def entropy_rank(features: np.ndarray) -> float:
    """From the eigenvalues of the covariance, not from singular values."""
    centred = features - features.mean(0)
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred), 0, None))
    share = values / values.sum()
    return math.exp(-sum(p * math.log(p) for p in share if p > 0))


def test_effective_rank_is_the_formula():
    features = np.random.default_rng(0).normal(size=(40, 6)) * [5, 3, 1, 1, 0.3, 0.1] + 7
    assert effective_rank(torch.from_numpy(features)) == pytest.approx(
        entropy_rank(features), rel=1e-6
    )


def test_effective_rank_counts_equal_directions():
    corners = torch.cat([torch.eye(5), -torch.eye(5)])  # 5 orthogonal directions of one length
    assert effective_rank(corners) == pytest.approx(5.0)
    assert effective_rank(3 * corners + 100) == pytest.approx(
        5.0, rel=1e-3
    )  # neither scale nor place counts


def test_collapse_is_one():
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    same = row.expand(30, 64)
    assert effective_rank(same) == 1.0
    noise = 1e-7 * row.abs() * torch.randn(30, 64, generator=torch.Generator().manual_seed(1))
    assert effective_rank(same + noise) == 1.0  # a spread by rounding alone
    line = torch.linspace(-1, 1, 30)[:, None] * row  # one direction
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-4)


def plain_knn(features, labels, groups, k):
    """Loops over everything."""
    right = 0
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if groups[j] != groups[i]]
        cosine = {
            j: features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j])
            for j in others
        }
        votes = {}
        for j in sorted(others, key=cosine.get, reverse=True)[:k]:
            votes[labels[j]] = votes.get(labels[j], 0) + math.exp(cosine[j] / 0.07)
        right += max(votes, key=votes.get) == labels[i]
    return right / len(labels)


@pytest.mark.parametrize("k", [1, 3, 10, 500])
@pytest.mark.parametrize("rows", [7, 1024])
def test_knn_is_a_plain_vote(monkeypatch, k, rows):
    monkeypatch.setattr(probes, "ROWS", rows)
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 40)
    groups = rng.integers(0, 5, 40)
    features = rng.normal(size=(40, 8)) + np.eye(4, 8)[labels] * 1.5
    found = knn(*map(torch.from_numpy, (features, labels, groups)), k=k, classes=4)
    assert found == pytest.approx(plain_knn(features, labels, groups, k))
    assert 0.3 < found < 1  # a case in which something can go wrong


def test_knn_does_not_ask_the_own_group():
    features = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    labels = torch.tensor([0, 0, 1, 1])
    groups = torch.tensor([0, 0, 1, 1])
    assert knn(features, labels, groups, k=1, classes=2) == 0.0  # each class lies in one group only
    assert knn(features, labels, torch.arange(4), k=1, classes=2) == 1.0
    with pytest.raises(InputError, match="at least two tiles"):
        knn(features, labels, torch.zeros(4, dtype=torch.int64), k=1, classes=2)
    with pytest.raises(InputError, match=r"expected features of N x D.*\(4, 2\), \(3,\)"):
        knn(features, labels[:3], groups, k=1, classes=2)


def made(cells: torch.Tensor, labels: torch.Tensor) -> Extracted:
    """Features as ``extract`` would give them, the vectors being the first cell."""
    count = len(cells)
    return Extracted(
        [str(i) for i in range(count)],
        {"hr": cells[:, 0], "fused": cells[:, 0]},
        {"hr": torch.arange(count) < 1, "fused": torch.ones(count, dtype=torch.bool)},
        cells,
        labels,
    )


def test_evaluate_reports_plain_numbers():
    rng = np.random.default_rng(0)
    cells, labels = (
        torch.from_numpy(rng.normal(size=(6, 4, 5))).float(),
        torch.from_numpy(rng.integers(-1, 3, (6, 4))),
    )
    found = evaluate(made(cells, labels), 3)
    flat = labels.flatten()
    kept = flat >= 0
    groups = np.repeat(np.arange(6), 4)[kept]
    assert found["labelled_cells"] == int(kept.sum()) and found["samples_of"] == {
        "hr": 1,
        "fused": 6,
    }
    assert found["effective_rank"] == {
        "fused": pytest.approx(entropy_rank(cells[:, 0].double().numpy()))
    }
    assert found["commonest_class"] == pytest.approx(
        np.bincount(flat[kept]).max() / int(kept.sum())
    )
    assert found["knn"] == {
        "10": pytest.approx(
            plain_knn(cells.flatten(0, 1)[kept].numpy(), flat[kept].numpy(), groups, 10)
        )
    }
    json.dumps(found, allow_nan=False)


def test_evaluate_says_not_finite_and_not_labelled():
    cells = torch.ones(3, 2, 4)
    cells[1, 0, 0] = torch.nan
    found = evaluate(made(cells, torch.zeros(3, 2, dtype=torch.int64)), 3)
    assert found["effective_rank"] == {"fused": None} and found["knn"] == {"10": None}
    labels = torch.full((3, 2), -1)
    labels[0] = 2
    assert "knn" not in evaluate(made(cells, labels), 3)
