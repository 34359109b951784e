"""What the figures of a finished run say about its health: a few plain questions.

Each is answered with its numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.config.settings import GuardSettings
from engine.report.evaluation import RankRow
from engine.report.history import History
from engine.report.panels import finite_mean
from engine.training.context import PREFIX
from engine.training.loss_terms import TOTAL_KEY, dropped_key

LEAST_SAMPLES = 4  # for a verdict on an effective rank, which is at most one less
LEAST_RANK = 1.5  # of a feature that has not collapsed
KEPT = 0.5  # share of the first weights' effective rank above 1 that training must leave
# Share of the variance between clusters of four cells, the smallest there are, drawn at random.
CHANCE = 0.25
# Variance of a region's prototypes over that of its cells. Prototypes that fell together have less
# than 0.001, others 0.1 to 0.5 (docs/decisions.md).
LEAST_SPREAD = 0.01


@dataclass(frozen=True)
class Verdict:
    """One question and its answer."""

    question: str
    good: bool | None  # None: there was nothing to judge
    numbers: str


def verdicts(
    history: History,
    guard: GuardSettings,
    *,
    prototypes: int,
    ranks: Sequence[RankRow],
) -> list[Verdict]:
    """All verdicts on a run.

    Args:
        history: the run's records.
        guard: bounds of the teacher's entropies.
        prototypes: K.
        ranks: effective rank of each feature, trained and with the first weights.
    """
    return [
        finite(history),
        falling(history),
        entropy(history, guard, prototypes),
        spread(history, guard, prototypes),
        objects(history),
        served(history, guard),
        rank(ranks),
        regions(history),
    ]


def finite(history: History) -> Verdict:
    """Every loss term of every step is a number, and every update was applied."""
    keys: set[str] = set()
    for record in history.records:
        keys.update(key for key in record if key.split("/")[0] == TOTAL_KEY)
    missing = {}  # key -> steps without a finite value
    for key in sorted(keys):
        steps = int((~np.isfinite(history.values(key))).sum())
        if steps:
            missing[key] = steps
    skipped = len(history.skipped_steps)
    numbers = f"{len(keys) - len(missing)} of {len(keys)} terms finite at all {len(history)} steps"
    if missing:
        worst = max(missing, key=lambda key: missing[key])
        numbers += f"; most often {worst}, at {missing[worst]} steps"
    return Verdict(
        "Are all loss terms finite?",
        not missing and not skipped,
        f"{numbers}; {skipped} updates skipped",
    )


def falling(history: History) -> Verdict:
    """The total is lower in the last tenth of the steps than in the first tenth.

    Both are means over the steps that compare.
    """
    question = "Does the total loss fall?"
    values = history.total()
    first, last = ends(values, history.tenth)
    if len(history) < 2 or not math.isfinite(first):
        numbers = f"{len(history)} steps, too few finite values to compare"
        return Verdict(question, None, numbers)
    numbers = f"mean {first:.3f} over the first {history.tenth} steps"
    if not math.isfinite(last):
        return Verdict(question, False, f"{numbers}, none finite at the end")
    numbers += f", {last:.3f} over the last"
    if first:
        numbers += f", {100 * (last - first) / abs(first):+.1f} %"
    left_out = len(history) - int(np.isfinite(values).sum())
    if left_out:
        numbers += f"; {left_out} steps left out, their batch could not measure every term"
    return Verdict(question, last < first, numbers)


def entropy(history: History, guard: GuardSettings, prototypes: int) -> Verdict:
    """No head is sure of one prototype, and none says nothing (last tenth of the steps)."""
    shares = {}
    for head in history.teacher_heads():
        _, last = ends(history.teacher(head, head.entropy), history.tenth)
        shares[head.name] = last / math.log(prototypes)
    return _bounded(
        "Does each teacher head decide, without being blindly sure?",
        "entropy of a target",
        shares,
        low=guard.entropy_low,
        high=guard.entropy_high,
    )


def spread(history: History, guard: GuardSettings, prototypes: int) -> Verdict:
    """No head gives all rows the same prototype (last tenth of the steps)."""
    shares = {}
    for head in history.teacher_heads():
        _, last = ends(history.teacher(head, head.mean_entropy), history.tenth)
        shares[head.name] = last / math.log(prototypes)
    return _bounded(
        "Does no teacher head fall on one prototype?",
        "entropy of the mean target",
        shares,
        low=guard.entropy_low,
        high=math.inf,
    )


def objects(history: History) -> Verdict:
    """The objects of an image differ (last tenth of the steps)."""
    question = "Do the objects of an image differ?"
    shares = {}
    for head in history.teacher_heads():
        values = history.values(head.spread)
        _, last = ends(np.where(values > 0, values, math.nan), history.tenth)
        if math.isfinite(last):
            shares[head.feature] = last
    if not shares:
        return Verdict(question, None, "no image of the last tenth of the steps had several")
    named = ", ".join(f"{feature} {share:.2f}" for feature, share in shares.items())
    numbers = f"share of the cells' variance between objects: {named}; wanted above {CHANCE:g}"
    return Verdict(question, min(shares.values()) > CHANCE, numbers)


def served(history: History, guard: GuardSettings) -> Verdict:
    """The experts serve the tokens of every sensor and view size (last tenth of the steps)."""
    question = "Do the experts serve the tokens of every sensor and view size?"
    shares = {}
    for kind in history.token_kinds():
        _, last = ends(history.values(dropped_key(kind)), history.tenth)
        if math.isfinite(last):
            shares[kind] = last
    if not shares:
        return Verdict(question, None, "the last tenth of the steps sent no token to an expert")
    named = [f"{kind.modality} {kind.view} {share:.1%}" for kind, share in shares.items()]
    numbers = f"dropped: {', '.join(named)}; wanted at most {guard.dropped:.0%}"
    return Verdict(question, max(shares.values()) <= guard.dropped, numbers)


def rank(ranks: Sequence[RankRow]) -> Verdict:
    """Every feature varies in as many directions as at the start, or nearly so.

    Rounding alone can bring the rank of a collapsed feature above 1, so 1 is no bound.
    """
    question = "Does every feature keep the effective rank that it starts with?"
    parts = []
    good = True
    for row in ranks:
        if row.samples < LEAST_SAMPLES:
            continue
        if row.trained is None:
            parts.append(f"{row.feature} not finite")
            good = False
            continue
        start = ""
        least = LEAST_RANK
        if row.untrained is not None:
            start = f" of {row.untrained:.2f}"
            least = max(least, 1 + KEPT * (row.untrained - 1))
        parts.append(f"{row.feature} {row.trained:.2f}{start}")
        good = good and row.trained >= least
    if not parts:
        return Verdict(question, None, f"fewer than {LEAST_SAMPLES} samples of each feature")
    numbers = f"{', '.join(parts)} at the start; wanted above {LEAST_RANK:g}, and no loss of more"
    return Verdict(question, good, f"{numbers} than {100 * (1 - KEPT):.0f} % of what exceeds 1")


def regions(history: History) -> Verdict:
    """The prototypes of a region differ (last tenth of the steps)."""
    question = "Do the prototypes of a region differ?"
    spread_of_all = history.values(f"{PREFIX}spread")
    first = finite_mean(spread_of_all[:1])
    _, last = ends(spread_of_all, history.tenth)
    if not math.isfinite(last):
        numbers = "no sample with a region in the last tenth of the steps, or no geo context"
        return Verdict(question, None, numbers)
    numbers = f"variance {last:.3f} of the cells' (first step {first:.3f}; "
    numbers += f"wanted above {LEAST_SPREAD:g})"
    for name, what in (("rank", "effective directions"), ("cosine", "mean cosine")):
        values = history.values(f"{PREFIX}{name}")
        first = finite_mean(values[:1])
        numbers += f", {what} {ends(values, history.tenth)[1]:.3f} (first step {first:.3f})"
    return Verdict(question, last > LEAST_SPREAD, numbers)


def ends(values: np.ndarray, count: int) -> tuple[float, float]:
    """Means of the first and of the last ``count`` values; NaN where none is finite."""
    return finite_mean(values[:count]), finite_mean(values[-count:])


def _bounded(
    question: str, what: str, shares: Mapping[str, float], *, low: float, high: float
) -> Verdict:
    """All shares of log K lie between two bounds; NaN are left out.

    Args:
        question: the question of the verdict.
        what: what the shares are.
        shares: a share of each head.
        low: greatest value that is too low.
        high: least value that is too high.
    """
    measured = {}
    outside = []
    for head, share in shares.items():
        if math.isfinite(share):
            measured[head] = share
            if not low < share < high:
                outside.append(head)
    if not measured:
        numbers = "no head had anything to measure in the last tenth of the steps"
        return Verdict(question, None, numbers)
    least = min(measured.values())
    greatest = max(measured.values())
    numbers = f"{what} / log K: {least:.3f} to {greatest:.3f} over {len(measured)} heads"
    numbers += f"; wanted above {low:g}"
    if math.isfinite(high):
        numbers += f" and below {high:g}"
    if outside:
        numbers += f"; outside: {', '.join(outside)}"
    return Verdict(question, not outside, numbers)
