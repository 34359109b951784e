"""Both probes on the features of one method: what is chosen on validation, and the test scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.evaluate import knn, linear
from engine.evaluate.items import CLASSIFICATION, MULTI_LABEL, Items, Parts
from engine.evaluate.measures import F1, Accuracy, AveragePrecision, Confusion, Measure, plain

KNN = "k-NN"
LINEAR = "linear"
PROBES = (KNN, LINEAR)
STANDARDISED = "standardised"
MOST_ROWS = 20_000  # of a train part: more are thinned out evenly


@dataclass(frozen=True)
class Candidate:
    """Features of all items, one of those that a method may choose from."""

    name: str
    # The parts -> the features (N, D) of all items. A few depend on the train part.
    of: Callable[[Parts], Tensor]


@dataclass(frozen=True)
class Probed:
    """What a probe made of one division into parts."""

    candidate: str  # the features that were best on validation
    setting: float  # k, or the learning rate, likewise
    validation: float  # the first measure there
    test: Tensor  # n K, scores of the test part
    sweep: dict[int, Tensor]  # k-NN: k -> n K, with the same features


def probe(
    name: str, candidates: Sequence[Candidate], items: Items, divided: Parts, *, seed: int
) -> Probed:
    """Choose features and setting on the validation part, then score the test part once.

    Args:
        name: ``KNN`` or ``LINEAR``.
        candidates: of one method.
        items: all items.
        divided: their parts.
        seed: of the order in which the linear probe sees the items.
    """
    best: Probed | None = None
    for candidate in candidates:
        features = candidate.of(divided)  # N D
        if name == KNN:
            probed = _knn(candidate.name, features, items, divided)
        else:
            probed = _linear(candidate.name, features, items, divided, seed=seed)
        if best is None or probed.validation > best.validation:
            best = probed
    assert best is not None  # there is at least one candidate
    return best


def thinned(rows: Tensor) -> Tensor:
    """At most ``MOST_ROWS`` of the rows, evenly spaced."""
    return rows[:: -(-len(rows) // MOST_ROWS)]


def _knn(candidate: str, features: Tensor, items: Items, divided: Parts) -> Probed:
    """The best k on validation, and the test part with every k.

    The cosine depends on the units of the features, so validation also chooses between the features
    as they are and in their deviations from the mean of the train part.
    """
    plain_one = _nearest(candidate, features, items, divided)
    known = features[divided.train]
    deviation = known.std(0, correction=0).clamp(min=1e-6)  # D
    scaled = (features - known.mean(0)) / deviation  # N D
    scaled_one = _nearest(f"{candidate}, {STANDARDISED}", scaled, items, divided)
    if scaled_one.validation > plain_one.validation:
        return scaled_one
    return plain_one


def _nearest(candidate: str, features: Tensor, items: Items, divided: Parts) -> Probed:
    """The best k on validation, and the test part with every k."""
    bank = thinned(divided.train)
    known = (features[bank], items.targets[bank])
    scores = knn.vote(*known, features[divided.validation])  # k -> n K
    values = {k: _value(items, divided.validation, score) for k, score in scores.items()}
    k = max(values, key=lambda number: values[number])
    sweep = knn.vote(*known, features[divided.test])
    return Probed(candidate, k, values[k], test=sweep[k], sweep=sweep)


def _linear(candidate: str, features: Tensor, items: Items, divided: Parts, *, seed: int) -> Probed:
    """The best learning rate on validation, and the test part with it."""
    rows = thinned(divided.train)
    several = items.kind == MULTI_LABEL
    probes = linear.train(features[rows], items.targets[rows], several=several, seed=seed)
    scores = probes.scores(features[divided.validation])  # P n K
    values = [_value(items, divided.validation, score) for score in probabilities(scores, items)]
    best = max(range(len(values)), key=lambda number: values[number])
    test = probabilities(probes.scores(features[divided.test])[best], items)  # n K
    return Probed(candidate, linear.RATES[best], values[best], test=test, sweep={})


def probabilities(logits: Tensor, items: Items) -> Tensor:
    """Logits (..., K) as scores between 0 and 1."""
    if items.kind == MULTI_LABEL:
        return logits.sigmoid()
    return logits.softmax(-1)


def _value(items: Items, rows: Tensor, scores: Tensor) -> float:
    """The first measure of some items."""
    units = torch.arange(len(rows))
    first = next(iter(measures(items, rows, scores, units).values()))
    return plain(first, len(rows))


def measures(items: Items, rows: Tensor, scores: Tensor, units: Tensor) -> dict[str, Measure]:
    """The measures of a kind of items by name; the first one counts.

    Args:
        items: all items.
        rows: n of them.
        scores: (n, K) between 0 and 1.
        units: (n,) int64, what is drawn again.
    """
    count = int(units.max()) + 1
    truth = items.targets[rows] > 0  # n K
    classes = truth.float().argmax(1)  # n
    if items.kind == CLASSIFICATION:
        return {"accuracy": Accuracy.of(scores, classes, units, count)}
    if items.kind == MULTI_LABEL:
        return {
            "macro mAP": AveragePrecision.of(scores, truth, units, macro=True),
            "micro mAP": AveragePrecision.of(scores, truth, units, macro=False),
            "macro F1": F1.of(scores, truth, units, count, macro=True),
            "micro F1": F1.of(scores, truth, units, count, macro=False),
        }
    return {
        "mIoU": Confusion.of(scores, classes, units, count),
        "cell accuracy": Accuracy.of(scores, classes, units, count),
    }
