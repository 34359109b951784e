"""The KoLeo regulariser against its formula in float64."""

import pytest
import torch

from models.pretraining.losses.koleo import EPSILON, koleo
from models.reducer import Reducer
from tests.unit.ranks import run_ranks


def draw(rows=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator), torch.arange(rows) % 4 != 2


def by_loops(features, mask):
    """- mean log of the distance to the nearest other valid row; that row is a constant."""
    x = features / features.square().sum(-1, keepdim=True).sqrt()
    valid, losses = mask.nonzero().flatten().tolist(), []
    for i in valid:
        distances = [(x[i] - x[j].detach()).square().sum().sqrt() for j in valid if j != i]
        losses.append(-(min(distances, key=lambda d: d.item()) + EPSILON).log())
    return sum(losses) / len(losses)


def test_equals_the_formula_with_gradients():
    features, mask = draw()
    exact, features = features.double().requires_grad_(), features.requires_grad_()
    expected, found = by_loops(exact, mask), koleo(features, mask, Reducer())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    expected.backward()
    found.backward()
    torch.testing.assert_close(features.grad, exact.grad.float(), rtol=1e-4, atol=1e-6)
    assert (features.grad[~mask] == 0).all()


def test_ranks_average_to_the_whole():
    features, mask = draw(rows=12)
    whole = features.clone().requires_grad_()
    expected = koleo(whole, mask, Reducer())
    expected.backward()

    def work(rank, reducer):
        own = features[4 * rank : 4 * rank + 4].clone().requires_grad_()
        loss = koleo(own, mask[4 * rank : 4 * rank + 4], reducer)
        loss.backward()
        return loss.detach(), own.grad / 3

    ranks = run_ranks(3, work)
    torch.testing.assert_close(sum(loss for loss, _ in ranks) / 3, expected.detach())
    torch.testing.assert_close(torch.cat([grad for _, grad in ranks]), whole.grad)


def test_masked_rows_have_no_influence():
    features, mask = draw()
    expected = koleo(features[mask], mask[mask], Reducer())
    spoilt = features.where(mask[:, None], torch.nan).requires_grad_()
    found = koleo(spoilt, mask, Reducer())
    torch.testing.assert_close(found, expected)
    found.backward()
    assert spoilt.grad.isfinite().all()


def test_it_spreads_and_does_not_depend_on_length():
    features, mask = draw()
    torch.testing.assert_close(
        koleo(features * torch.arange(1.0, 10)[:, None], mask, Reducer()),
        koleo(features, mask, Reducer()),
    )
    near = features[:1] + 0.01 * features
    assert koleo(near, mask, Reducer()) > koleo(features, mask, Reducer()) + 1
    features.requires_grad_()
    koleo(features, mask, Reducer()).backward()
    assert koleo(features.detach() - 0.05 * features.grad, mask, Reducer()) < koleo(
        features.detach(), mask, Reducer()
    )


def test_equal_rows_are_finite():
    features = torch.ones(3, 5, requires_grad=True)
    loss = koleo(features, torch.ones(3, dtype=torch.bool), Reducer())
    loss.backward()
    assert loss.isfinite() and features.grad.isfinite().all()


@pytest.mark.parametrize("valid", [0, 1])
def test_fewer_than_two_rows_give_zero_with_zero_gradients(valid):
    features = draw()[0].requires_grad_()
    loss = koleo(features, torch.arange(9) < valid, Reducer())
    loss.backward()
    assert loss == 0 and (features.grad == 0).all()
    assert koleo(features[:1].detach(), torch.ones(1, dtype=torch.bool), Reducer()) == 0
