"""Linear probes against a logistic regression that scipy minimises in float64, and both probes
against scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from data.errors import InputError
from engine.evaluate.knn import vote
from engine.evaluate.linear import RATES, train


def features_of(labels, rng, *, width=24):
    """Correlated features that tell the classes apart in part."""
    mixing = rng.normal(size=(width, width)) * np.geomspace(1, 0.05, width)
    centres = rng.normal(size=(labels.shape[1], width))
    return (labels @ centres + 1.6 * rng.normal(size=(len(labels), width))) @ mixing + 3


def logistic_regression(x, y, *, several):
    """Weights and bias at the minimum of the mean cross-entropy with a faint penalty."""

    def loss(flat):
        weights = flat.reshape(x.shape[1] + 1, -1)
        logits = x @ weights[:-1] + weights[-1]
        if several:
            value = np.logaddexp(0, logits).sum() - (y * logits).sum()
            error = expit(logits) - y
        else:
            value = -(y * log_softmax(logits, 1)).sum()
            error = softmax(logits, 1) - y
        gradient = np.concatenate([x.T @ error, error.sum(0)[None]]) / len(x)
        return value / len(x) + 5e-5 * (flat**2).sum(), gradient.ravel() + 1e-4 * flat

    start = np.zeros((x.shape[1] + 1) * y.shape[1])
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return result.x.reshape(x.shape[1] + 1, -1)


def best_scores(x, y, queries, *, several):
    """Scores of the probe with the highest accuracy on the train part itself."""
    probes = train(torch.from_numpy(x), torch.from_numpy(y), several=several)
    own = probes.scores(torch.from_numpy(x))
    right = ((own > 0) == torch.from_numpy(y > 0)).float().mean((1, 2))
    if not several:
        right = (own.argmax(-1) == torch.from_numpy(y).argmax(1)).float().mean(1)
    return probes.scores(torch.from_numpy(queries))[right.argmax()].numpy()


@pytest.mark.parametrize("several", [False, True])
def test_the_probe_is_a_logistic_regression(several):
    rng = np.random.default_rng(0)
    labels = np.eye(5)[rng.integers(0, 5, 9000)]
    if several:
        labels = (rng.random((9000, 5)) < 0.3).astype(float)
    features = features_of(labels, rng)
    x = (features - features.mean(0)) / features.std(0)
    weights = logistic_regression(x[:3000], labels[:3000], several=several)
    exact = x[3000:] @ weights[:-1] + weights[-1]
    ours = best_scores(features[:3000], labels[:3000], features[3000:], several=several)
    truth = labels[3000:]
    if several:
        assert 0.75 < ((exact > 0) == truth).mean() < 0.99
        assert abs(((exact > 0) == truth).mean() - ((ours > 0) == truth).mean()) < 0.005
    else:
        exact_accuracy = (exact.argmax(1) == truth.argmax(1)).mean()
        assert 0.6 < exact_accuracy < 0.99
        assert abs(exact_accuracy - (ours.argmax(1) == truth.argmax(1)).mean()) < 0.005


def test_scale_and_place_of_the_features_do_not_count():
    rng = np.random.default_rng(1)
    labels = torch.from_numpy(np.eye(3)[rng.integers(0, 3, 300)])
    x = torch.from_numpy(rng.normal(size=(300, 6)))
    first = train(x, labels, several=False, steps=50).scores(x)
    other = train(1e-3 * x + 50, labels, several=False, steps=50).scores(1e-3 * x + 50)
    torch.testing.assert_close(first, other, atol=1e-4, rtol=1e-4)
    assert first.shape == (len(RATES), 300, 3)


def test_a_constant_feature_is_left_out():
    x = torch.full((40, 4), 7.0)
    labels = torch.eye(2).repeat(20, 1)
    assert train(x, labels, several=False, steps=20).scores(x).isfinite().all()


def test_features_that_are_not_finite_are_refused():
    x = torch.zeros(3, 2)
    x[1, 1] = torch.nan
    with pytest.raises(InputError, match="linear probe: expected finite features"):
        train(x, torch.eye(3), several=False)


def test_agreement_with_scikit_learn():
    """On the same features, to half a point."""
    rng = np.random.default_rng(2)
    numbers = rng.integers(0, 5, 6000)
    features = features_of(np.eye(5)[numbers], rng)
    x = (features - features.mean(0)) / features.std(0)
    truth = numbers[2000:]

    theirs = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(x[:2000], numbers[:2000])
    labels = torch.from_numpy(np.eye(5)[numbers])
    shares = vote(torch.from_numpy(x[:2000]), labels[:2000], torch.from_numpy(x[2000:]))[20]
    ours = (shares.argmax(1).numpy() == truth).mean()
    assert abs(theirs.score(x[2000:], truth) - ours) < 0.005

    regression = LogisticRegression(max_iter=2000).fit(x[:2000], numbers[:2000])
    scores = best_scores(x[:2000], np.eye(5)[numbers[:2000]], x[2000:], several=False)
    ours = (scores.argmax(1) == truth).mean()
    assert abs(regression.score(x[2000:], truth) - ours) < 0.005
