"""How good predictions are, for any choice of the tested units: accuracy, F1, precision, IoU.

A unit is what is drawn when a test set is drawn again: an item, or all items of one place. A
measure takes many draws at once, each as the number of times that every unit is in it. A vector of
ones gives the plain figure of the test set.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Measure(Protocol):
    """A figure between 0 and 1 of a test set."""

    def values(self, draws: Tensor) -> Tensor:
        """The figure of each draw.

        Args:
            draws: (R, U) float64, how often each of the U units is in a draw.

        Returns:
            (R,) float64; NaN where a draw has nothing to measure.
        """


def plain(measure: Measure, units: int) -> float:
    """The figure of the whole test set."""
    return float(measure.values(torch.ones(1, units, dtype=torch.float64))[0])


def by_unit(rows: Tensor, units: Tensor, count: int) -> Tensor:
    """Sums over the items of each unit.

    Args:
        rows: (N, ...) a row an item.
        units: (N,) int64, the unit of each item.
        count: U.

    Returns:
        (U, ...) float64.
    """
    total = torch.zeros(count, *rows.shape[1:], dtype=torch.float64)
    return total.index_add_(0, units, rows.double())


@dataclass(frozen=True)
class Accuracy:
    """Share of right items."""

    right: Tensor  # U float64, items that are right
    items: Tensor  # U float64

    @classmethod
    def of(cls, scores: Tensor, truth: Tensor, units: Tensor, count: int) -> "Accuracy":
        """Of scores (N, K) whose largest is the prediction, and true classes (N,) int64."""
        right = scores.argmax(1) == truth  # N
        return cls(by_unit(right, units, count), by_unit(torch.ones_like(right), units, count))

    def values(self, draws: Tensor) -> Tensor:
        """See ``Measure``."""
        return (draws @ self.right) / (draws @ self.items)


@dataclass(frozen=True)
class Confusion:
    """One integer confusion matrix over all items of a draw, never a mean over images.

    Items without a label are not in it.
    """

    counts: Tensor  # U K K float64 of whole numbers: true class, predicted class

    @classmethod
    def of(cls, scores: Tensor, truth: Tensor, units: Tensor, count: int) -> "Confusion":
        """Of scores (N, K) whose largest is the prediction, and true classes (N,), -1 for none."""
        labelled = truth >= 0  # N
        classes = scores.shape[1]
        cells = truth[labelled] * classes + scores[labelled].argmax(1)  # n
        places = units[labelled] * classes**2 + cells  # n
        counts = torch.bincount(places, minlength=count * classes**2)
        return cls(counts.view(count, classes, classes).double())

    def matrix(self, draws: Tensor) -> Tensor:
        """The confusion matrix of each draw: R K K."""
        return torch.einsum("ru,ujk->rjk", draws, self.counts)

    def iou(self, draws: Tensor) -> Tensor:
        """TP / (TP + FP + FN) by class: R K, NaN for a class that a draw neither has nor sees."""
        matrix = self.matrix(draws)  # R K K
        right = matrix.diagonal(dim1=1, dim2=2)  # R K
        return right / (matrix.sum(1) + matrix.sum(2) - right)

    def values(self, draws: Tensor) -> Tensor:
        """The mean IoU over the classes that have one, see ``Measure``."""
        return self.iou(draws).nanmean(1)


@dataclass(frozen=True)
class F1:
    """F1 of labels that are predicted where their score is above one half."""

    right: Tensor  # U K float64, true positives
    wrong: Tensor  # U K, false positives and false negatives
    macro: bool  # the mean over classes; otherwise all labels together

    @classmethod
    def of(cls, scores: Tensor, truth: Tensor, units: Tensor, count: int, *, macro: bool) -> "F1":
        """Of scores (N, K) in [0, 1] and true labels (N, K) bool."""
        named = scores > 0.5  # N K
        return cls(
            right=by_unit(named & truth, units, count),
            wrong=by_unit(named ^ truth, units, count),
            macro=macro,
        )

    def values(self, draws: Tensor) -> Tensor:
        """See ``Measure``. A class that a draw neither has nor predicts is left out."""
        right = draws @ self.right  # R K
        wrong = draws @ self.wrong  # R K
        if self.macro:
            return (2 * right / (2 * right + wrong)).nanmean(1)
        return 2 * right.sum(1) / (2 * right.sum(1) + wrong.sum(1))


@dataclass(frozen=True)
class AveragePrecision:
    """Area under the curve of precision over recall, as a sum over the distinct scores.

    AP = sum_n (R_n - R_{n-1}) P_n: no interpolation. Items of one score come together.
    """

    rankings: list["Ranking"]  # one a class for the macro mean, or a single one of all labels

    @classmethod
    def of(cls, scores: Tensor, truth: Tensor, units: Tensor, *, macro: bool) -> "AveragePrecision":
        """Of scores (N, K) and true labels (N, K) bool."""
        if macro:
            columns = zip(scores.unbind(1), truth.unbind(1), strict=True)
            return cls([Ranking.of(score, label, units) for score, label in columns])
        everything = units[:, None].expand_as(truth).flatten()  # NK
        return cls([Ranking.of(scores.flatten(), truth.flatten(), everything)])

    def values(self, draws: Tensor) -> Tensor:
        """The mean over the classes that a draw has, see ``Measure``."""
        by_class = [ranking.precision(draws) for ranking in self.rankings]
        return torch.stack(by_class).nanmean(0)


@dataclass(frozen=True)
class Ranking:
    """Items in the order of falling scores."""

    units: Tensor  # M int64
    truth: Tensor  # M bool
    last: Tensor  # M int64, place of the last item with the same score

    @classmethod
    def of(cls, scores: Tensor, truth: Tensor, units: Tensor) -> "Ranking":
        """Of scores (M,), labels (M,) bool and units (M,)."""
        order = scores.argsort(descending=True, stable=True)  # M
        _, counts = scores[order].unique_consecutive(return_counts=True)
        last = (counts.cumsum(0) - 1).repeat_interleave(counts)  # M
        return cls(units[order], truth[order], last)

    def precision(self, draws: Tensor) -> Tensor:
        """Average precision of each draw: (R,), NaN where a draw has no true label."""
        weights = draws[:, self.units]  # R M
        found = weights * self.truth  # R M
        hits = found.cumsum(1)[:, self.last]  # R M
        named = weights.cumsum(1)[:, self.last]  # R M
        total = found.sum(1)  # R
        return (found * hits / named.clamp(min=1)).sum(1) / total
