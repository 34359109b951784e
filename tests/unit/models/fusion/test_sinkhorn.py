"""Sinkhorn-Knopp against the textbook loop in float64, its properties, and one rank against
several."""

import numpy as np
import pytest
import torch

import models.fusion.sinkhorn as module
from models.errors import ModelError
from models.fusion.sinkhorn import sinkhorn, sinkhorn_many
from models.reducer import Reducer
from tests.unit.formulas import textbook
from tests.unit.ranks import run_ranks


def draw(rows=12, columns=7, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator)


def everything(scores):
    return torch.ones(scores.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize("rows,columns", [(12, 7), (3, 20), (1, 1), (1, 5), (40, 2)])
@pytest.mark.parametrize("epsilon,iterations", [(0.05, 1), (0.05, 3), (1.0, 3), (0.2, 20)])
def test_equals_the_textbook(rows, columns, epsilon, iterations):
    scores = draw(rows, columns).clamp(-1, 1)
    found = sinkhorn(
        scores, everything(scores), epsilon=epsilon, iterations=iterations, reducer=Reducer()
    )
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, textbook(scores, epsilon, iterations), rtol=2e-4, atol=1e-6)
    many = sinkhorn_many(
        scores.expand(2, 3, -1, -1),
        everything(scores).expand(2, 3, -1),
        epsilon=epsilon,
        iterations=iterations,
    )
    torch.testing.assert_close(many, found.expand(2, 3, -1, -1))


def test_marginals():
    scores = draw(64, 8)
    found = sinkhorn(scores, everything(scores), epsilon=0.3, iterations=50, reducer=Reducer())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(64))
    torch.testing.assert_close(found.sum(dim=0), torch.full((8,), 64 / 8), rtol=1e-3, atol=0)


def test_a_uniform_score_gives_a_uniform_assignment_and_a_clear_one_a_permutation():
    found = sinkhorn(
        torch.full((6, 3), 0.7),
        torch.ones(6, dtype=torch.bool),
        epsilon=0.05,
        iterations=3,
        reducer=Reducer(),
    )
    torch.testing.assert_close(found, torch.full((6, 3), 1 / 3))
    order = torch.tensor([2, 0, 3, 1])
    found = sinkhorn(
        torch.eye(4)[order],
        torch.ones(4, dtype=torch.bool),
        epsilon=0.01,
        iterations=3,
        reducer=Reducer(),
    )
    torch.testing.assert_close(found, torch.eye(4)[order])


def test_permuting_rows_and_columns_permutes_the_assignment():
    scores = draw()
    mask = torch.arange(12) % 3 > 0
    generator = torch.Generator().manual_seed(3)
    rows, columns = torch.randperm(12, generator=generator), torch.randperm(7, generator=generator)
    expected = sinkhorn(scores, mask, epsilon=0.1, iterations=3, reducer=Reducer())[rows][
        :, columns
    ]
    torch.testing.assert_close(
        sinkhorn(
            scores[rows][:, columns], mask[rows], epsilon=0.1, iterations=3, reducer=Reducer()
        ),
        expected,
    )


@pytest.mark.parametrize("junk", [0.0, 1e30, float("nan"), float("inf"), -float("inf")])
def test_masked_rows_are_zero_and_change_nothing(junk):
    scores = draw()
    mask = torch.arange(12) % 4 > 0
    expected = sinkhorn(
        scores[mask], everything(scores[mask]), epsilon=0.1, iterations=3, reducer=Reducer()
    )
    scores[~mask] = junk
    for found in (
        sinkhorn(scores, mask, epsilon=0.1, iterations=3, reducer=Reducer()),
        sinkhorn_many(scores, mask, epsilon=0.1, iterations=3),
    ):
        torch.testing.assert_close(found[mask], expected)
        assert (found[~mask] == 0).all()


def test_nothing_valid_and_no_rows():
    scores = draw()
    nothing = torch.zeros(12, dtype=torch.bool)
    assert (sinkhorn(scores, nothing, epsilon=0.1, iterations=3, reducer=Reducer()) == 0).all()
    assert (sinkhorn_many(scores[None], nothing[None], epsilon=0.1, iterations=3) == 0).all()
    assert sinkhorn(
        scores[:0], nothing[:0], epsilon=0.1, iterations=3, reducer=Reducer()
    ).shape == (0, 7)


def test_problems_of_sinkhorn_many_are_independent():
    scores = torch.stack([draw(seed=1), draw(seed=2, scale=50.0), draw(seed=3)])
    mask = torch.stack(
        [everything(scores[0]), torch.arange(12) < 5, torch.zeros(12, dtype=torch.bool)]
    )
    found = sinkhorn_many(scores, mask, epsilon=0.1, iterations=3)
    for one, ok, expected in zip(scores, mask, found):
        torch.testing.assert_close(
            sinkhorn(one, ok, epsilon=0.1, iterations=3, reducer=Reducer()), expected
        )


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_large_scores_stay_finite_and_right(scale):
    scores = draw(32, 6, scale=scale).clamp(-1e4, 1e4)
    found = sinkhorn(scores, everything(scores), epsilon=0.05, iterations=3, reducer=Reducer())
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(32))
    # rows far below the largest underflow in the textbook form even in float64: the reference works
    # with logarithms
    log = scores.double().numpy() / 0.05
    for _ in range(3):
        log = log - np.logaddexp.reduce(log, axis=0)
        log = log - np.logaddexp.reduce(log, axis=1)[:, None]
    np.testing.assert_allclose(found, np.exp(log), atol=4 * scale / 0.05 * 2**-24 + 1e-5)


def test_a_row_far_below_the_others_is_assigned_by_its_own_differences():
    scores = draw(8, 5).clamp(-1, 1)
    scores[3] -= 1e4
    found = sinkhorn(scores, everything(scores), epsilon=0.05, iterations=3, reducer=Reducer())
    assert (
        found[3].argmax()
        == (scores[3] + 0.05 * (found[0] / (scores[0] / 0.05).exp()).log()).argmax()
    )
    torch.testing.assert_close(found.sum(dim=1), torch.ones(8))


@pytest.mark.parametrize("cuts", [[6, 6], [1, 11], [0, 12], [3, 4, 5]])
def test_rows_spread_over_ranks_equal_the_whole(cuts):
    scores = draw(scale=3.0)
    scores[5] = float("nan")
    mask = torch.arange(12) != 5
    expected = sinkhorn(scores, mask, epsilon=0.07, iterations=3, reducer=Reducer())
    parts, masks = scores.split(cuts), mask.split(cuts)
    found = run_ranks(
        len(cuts),
        lambda rank, reducer: sinkhorn(
            parts[rank], masks[rank], epsilon=0.07, iterations=3, reducer=reducer
        ),
    )
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-4, atol=1e-6)


def test_nothing_valid_on_any_rank():
    found = run_ranks(
        2,
        lambda rank, reducer: sinkhorn(
            draw(), torch.zeros(12, dtype=torch.bool), epsilon=0.1, iterations=3, reducer=reducer
        ),
    )
    assert all((part == 0).all() for part in found)


def test_a_valid_row_that_is_not_finite_is_not_hidden():
    scores = draw()
    scores[2, 1] = float("nan")
    assert (
        sinkhorn(scores, everything(scores), epsilon=0.1, iterations=3, reducer=Reducer())
        .isnan()
        .any()
    )


def test_chunks_do_not_matter(monkeypatch):
    scores = draw(30, 20)
    expected = sinkhorn(scores, everything(scores), epsilon=0.1, iterations=3, reducer=Reducer())
    monkeypatch.setattr(module, "ROWS", 7)
    monkeypatch.setattr(module, "COLUMNS", 3)
    assert torch.equal(
        sinkhorn(scores, everything(scores), epsilon=0.1, iterations=3, reducer=Reducer()), expected
    )


def test_the_scores_are_left_alone_and_get_no_gradient():
    scores = draw().requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn(
        scores, everything(scores), epsilon=1.0, iterations=3, reducer=Reducer()
    ).requires_grad
    assert torch.equal(scores, before)


@pytest.mark.parametrize(
    "epsilon,iterations,rows", [(0.0, 3, 12), (-1.0, 3, 12), (0.1, 0, 12), (0.1, 3, 11)]
)
def test_impossible_arguments_are_refused(epsilon, iterations, rows):
    with pytest.raises(ModelError, match="sinkhorn: expected"):
        sinkhorn(
            draw(),
            torch.ones(rows, dtype=torch.bool),
            epsilon=epsilon,
            iterations=iterations,
            reducer=Reducer(),
        )
