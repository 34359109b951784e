"""From test scores to figures with intervals, and to a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.evaluate.intervals import Interval, draws, interval
from engine.evaluate.items import Items, Parts
from engine.evaluate.measures import Measure, plain
from engine.evaluate.probing import Probed, measures

TEACHER = "teacher"


@dataclass(frozen=True)
class Row:
    """One method with one probe."""

    method: str
    figures: dict[str, Interval]  # measure -> its mean over the seeds
    chosen: list[str]  # features and setting of each seed and fold
    sweep: dict[int, float]  # k-NN: k -> the first measure with the chosen features


@dataclass(frozen=True)
class Comparison:
    """The teacher against the best of the others."""

    probe: str
    measure: str
    rival: str
    gain: Interval  # teacher - rival, of the same draws

    @property
    def beats(self) -> bool:
        """Whether the teacher is better in nearly every draw."""
        return self.gain.low > 0

    def __str__(self) -> str:
        gain = 100 * self.gain.value
        if self.beats:
            says = f"the teacher beats the best of the others, {self.rival}, by {gain:.1f} points"
        elif self.gain.high < 0:
            says = f"the teacher is {-gain:.1f} points worse than {self.rival}"
        else:
            says = f"no difference to {self.rival} is shown, {gain:+.1f} points"
        edges = f"{100 * self.gain.low:+.1f} to {100 * self.gain.high:+.1f}"
        return f"{self.probe}, {self.measure}: {says} (95 % interval {edges})"


@dataclass(frozen=True)
class SeedScores:
    """All test items of one seed, over its folds."""

    rows: Tensor  # n int64, numbers of the items
    scores: Tensor  # n K
    sweep: dict[int, Tensor]  # k -> n K

    @classmethod
    def of(cls, divided: Sequence[Parts], probed: Sequence[Probed]) -> "SeedScores":
        """The folds of a seed, joined."""
        sweep = {}
        for k in probed[0].sweep:
            sweep[k] = torch.cat([fold.sweep[k] for fold in probed])
        rows = torch.cat([parts.test for parts in divided])
        return cls(rows, torch.cat([fold.test for fold in probed]), sweep)


@dataclass(frozen=True)
class Drawn:
    """The first measure of a method over the draws: R float64."""

    method: str
    value: float
    values: Tensor


def judge(
    method: str, items: Items, tested: Sequence[SeedScores], chosen: list[str]
) -> tuple[Row, Drawn]:
    """Figures of one method, the mean over the seeds, over the same draws of groups.

    Args:
        method: its name.
        items: all items.
        tested: one a seed.
        chosen: what the probe chose, for the row.
    """
    figures: dict[str, list[float]] = {}
    drawn: dict[str, list[Tensor]] = {}
    sweeps: dict[int, list[float]] = {}
    for seed in tested:
        units = _units(items, seed.rows)  # n
        count = int(units.max()) + 1
        again = draws(count, seed=0)  # R U, the same for all methods
        for name, measure in measures(items, seed.rows, seed.scores, units).items():
            figures.setdefault(name, []).append(plain(measure, count))
            drawn.setdefault(name, []).append(measure.values(again))
        for k, scores in seed.sweep.items():
            first = _first(measures(items, seed.rows, scores, units))
            sweeps.setdefault(k, []).append(plain(first, count))
    intervals = {}
    for name, values in figures.items():
        intervals[name] = interval(_mean(values), torch.stack(drawn[name]).mean(0))
    row = Row(method, intervals, chosen, {k: _mean(values) for k, values in sweeps.items()})
    first_name = next(iter(figures))
    mean_draws = torch.stack(drawn[first_name]).mean(0)  # R
    return row, Drawn(method, _mean(figures[first_name]), mean_draws)


def compare(probe: str, measure: str, drawn: Mapping[str, Drawn]) -> Comparison:
    """The teacher against the best of the other methods."""
    teacher = drawn[TEACHER]
    others = [figure for name, figure in drawn.items() if name != TEACHER]
    rival = max(others, key=lambda figure: figure.value)
    gain = interval(teacher.value - rival.value, teacher.values - rival.values)
    return Comparison(probe, measure, rival.method, gain)


def _units(items: Items, rows: Tensor) -> Tensor:
    """The groups of some items, numbered from 0."""
    return items.groups[rows].unique(return_inverse=True)[1]


def _first(by_name: Mapping[str, Measure]) -> Measure:
    return next(iter(by_name.values()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
