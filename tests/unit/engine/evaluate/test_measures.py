"""Measures against loops; a unit that is drawn twice counts as if its items were there twice."""

import numpy as np
import pytest
import torch

from engine.evaluate.intervals import draws, interval
from engine.evaluate.measures import F1, Accuracy, AveragePrecision, Confusion, plain

ITEMS = 40
UNITS = 12
CLASSES = 3


@pytest.fixture
def items():
    """Scores with ties, true labels, and the unit of each item."""
    rng = np.random.default_rng(5)
    truth = rng.random((ITEMS, CLASSES)) < 0.4
    scores = np.round(0.5 * truth + 0.7 * rng.random((ITEMS, CLASSES)), 1)
    units = np.concatenate([np.arange(UNITS), rng.integers(0, UNITS, ITEMS - UNITS)])
    return scores, truth, units


def drawn_items(draw, units):
    """Numbers of the items of a draw, each as often as its unit."""
    return np.repeat(np.arange(ITEMS), draw[units].astype(int))


def plain_precision(scores, truth):
    """Average precision by its definition: over the distinct scores, from the top."""
    total = 0.0
    recall = 0.0
    for threshold in sorted(set(scores), reverse=True):
        named = scores >= threshold
        hits = (named & truth).sum()
        total += (hits / truth.sum() - recall) * hits / named.sum()
        recall = hits / truth.sum()
    return total


def plain_f1(named, truth):
    both = (named & truth).sum()
    return 2 * both / (named.sum() + truth.sum())


def expected_values(kind, scores, truth, rows):
    """The figure of one draw, by loops."""
    scores = scores[rows]
    truth = truth[rows]
    columns = range(CLASSES)
    if kind == "macro AP":
        return np.mean([plain_precision(scores[:, c], truth[:, c]) for c in columns])
    if kind == "micro AP":
        return plain_precision(scores.ravel(), truth.ravel())
    if kind == "macro F1":
        return np.mean([plain_f1(scores[:, c] > 0.5, truth[:, c]) for c in columns])
    if kind == "micro F1":
        return plain_f1(scores.ravel() > 0.5, truth.ravel())
    classes = truth.argmax(1)
    if kind == "accuracy":
        return np.mean(scores.argmax(1) == classes)
    shares = []
    for c in columns:
        named = scores.argmax(1) == c
        shares.append((named & (classes == c)).sum() / (named | (classes == c)).sum())
    return np.mean(shares)


def measure_of(kind, scores, truth, units):
    scores = torch.from_numpy(scores)
    classes = torch.from_numpy(truth.argmax(1))
    truth = torch.from_numpy(truth)
    units = torch.from_numpy(units)
    macro = kind.startswith("macro")
    if kind.endswith("AP"):
        return AveragePrecision.of(scores, truth, units, macro=macro)
    if kind.endswith("F1"):
        return F1.of(scores, truth, units, UNITS, macro=macro)
    if kind == "accuracy":
        return Accuracy.of(scores, classes, units, UNITS)
    return Confusion.of(scores, classes, units, UNITS)


@pytest.mark.parametrize(
    "kind", ["macro AP", "micro AP", "macro F1", "micro F1", "accuracy", "mean IoU"]
)
def test_a_measure_is_its_definition_for_any_draw(items, kind):
    scores, truth, units = items
    measure = measure_of(kind, scores, truth, units)
    drawn = draws(UNITS, seed=1, count=20)
    values = measure.values(drawn)
    for draw, value in zip(drawn.numpy(), values.tolist()):
        rows = drawn_items(draw, units)
        assert value == pytest.approx(expected_values(kind, scores, truth, rows), abs=1e-12)
    everything = expected_values(kind, scores, truth, np.arange(ITEMS))
    assert plain(measure, UNITS) == pytest.approx(everything, abs=1e-12)


def test_cells_without_a_label_are_not_counted_and_absent_classes_have_no_iou():
    scores = torch.eye(4)[torch.tensor([0, 0, 1, 1, 1])]
    truth = torch.tensor([0, 1, 1, -1, -1])
    confusion = Confusion.of(scores, truth, torch.zeros(5, dtype=torch.int64), 1)
    one = torch.ones(1, 1, dtype=torch.float64)
    assert confusion.matrix(one)[0, :2, :2].tolist() == [[1, 0], [1, 1]]
    assert confusion.iou(one)[0].isnan().tolist() == [False, False, True, True]
    assert plain(confusion, 1) == pytest.approx(0.5)


def test_the_interval_of_an_accuracy_is_that_of_a_share():
    rng = np.random.default_rng(0)
    right = torch.from_numpy(rng.random(400) < 0.7).double()
    measure = Accuracy(right, torch.ones(400, dtype=torch.float64))
    drawn = measure.values(draws(400, seed=0))
    share = float(right.mean())
    found = interval(share, drawn)
    half = 1.96 * (share * (1 - share) / 400) ** 0.5
    assert found.low == pytest.approx(share - half, abs=0.006)
    assert found.high == pytest.approx(share + half, abs=0.006)
    assert torch.equal(draws(400, seed=0), draws(400, seed=0))
    assert draws(400, seed=0).sum(1).unique().tolist() == [400]
