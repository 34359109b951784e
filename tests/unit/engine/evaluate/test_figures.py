"""Effective rank against eigenvalues, and the figures of the report against loops."""

import json
import math

import numpy as np
import pytest
import torch

from engine.evaluate.features import Extracted
from engine.evaluate.figures import effective_rank, report_figures
from models.features import FUSED
from tests.unit.engine.evaluate.test_knn import plain_vote


def entropy_rank(features: np.ndarray) -> float:
    """From the eigenvalues of the covariance, not from singular values."""
    centred = features - features.mean(0)
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred), 0, None))
    share = values / values.sum()
    return math.exp(-sum(p * math.log(p) for p in share if p > 0))


def test_effective_rank_is_the_formula():
    features = np.random.default_rng(0).normal(size=(40, 6)) * [5, 3, 1, 1, 0.3, 0.1] + 7
    rank = effective_rank(torch.from_numpy(features))
    assert rank == pytest.approx(entropy_rank(features), rel=1e-6)


def test_effective_rank_counts_equal_directions():
    corners = torch.cat([torch.eye(5), -torch.eye(5)])  # 5 orthogonal directions of one length
    assert effective_rank(corners) == pytest.approx(5.0)
    # neither scale nor place counts
    assert effective_rank(3 * corners + 100) == pytest.approx(5.0, rel=1e-3)


def test_collapse_is_one():
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    same = row.expand(30, 64)
    assert effective_rank(same) == 1.0
    noise = 1e-7 * row.abs() * torch.randn(30, 64, generator=torch.Generator().manual_seed(1))
    assert effective_rank(same + noise) == 1.0  # a spread by rounding alone
    line = torch.linspace(-1, 1, 30)[:, None] * row  # one direction
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-4)


def made(cells: torch.Tensor, labels: torch.Tensor) -> Extracted:
    """Features of tiles with 2 x 2 cells, the vectors being the first cell."""
    count = len(cells)
    first = cells[:, 0, 0]
    return Extracted(
        keys=[f"tile {number}" for number in range(count)],
        vectors={"hr, stage4": first, FUSED: first},
        present={
            "hr, stage4": torch.arange(count) < 1,
            FUSED: torch.ones(count, dtype=torch.bool),
        },
        cells={FUSED: cells},
        labels=labels,
        problems={},
    )


def test_the_report_has_plain_numbers():
    rng = np.random.default_rng(0)
    cells = torch.from_numpy(rng.normal(size=(6, 2, 2, 5))).float()
    labels = torch.from_numpy(rng.integers(-1, 3, (6, 2, 2)))
    figures = report_figures(made(cells, labels), ["a", "b", "c"])
    kept = labels.flatten() >= 0
    rows = cells.flatten(0, 2)[kept].numpy()
    classes = labels.flatten()[kept].numpy()
    tiles = np.repeat(np.arange(6), 4)[kept]
    assert figures["labelled_cells"] == len(rows)
    assert figures["samples_of"] == {"hr, stage4": 1, "fused": 6}
    rank = entropy_rank(cells[:, 0, 0].double().numpy())
    assert figures["effective_rank"] == {"fused": pytest.approx(rank)}
    assert figures["commonest_class"] == pytest.approx(np.bincount(classes).max() / len(rows))
    right = 0
    for number in range(len(rows)):
        others = np.flatnonzero(tiles != tiles[number])
        votes = plain_vote(rows, np.eye(3)[classes], rows[number], 10, others)
        right += votes.argmax() == classes[number]
    assert figures["knn"] == {"10": pytest.approx(right / len(rows))}
    json.dumps(figures, allow_nan=False)


def test_features_that_are_not_finite_or_not_labelled_have_no_figure():
    cells = torch.ones(3, 2, 2, 4)
    cells[1, 0, 0] = torch.nan
    figures = report_figures(made(cells, torch.zeros(3, 2, 2, dtype=torch.int64)), ["a"])
    assert figures["effective_rank"] == {"fused": None}
    assert figures["knn"] == {"10": None}
    labels = torch.full((3, 2, 2), -1)
    labels[0] = 0
    assert "knn" not in report_figures(made(cells, labels), ["a"])
