"""What the figures of a finished run say about its health: a few plain questions, each answered
with its numbers."""

import math
from dataclasses import dataclass

import numpy as np

from engine.config.settings import GuardSettings
from engine.report.figures import heads, measured, series, tenth


@dataclass(frozen=True)
class Verdict:
    """One question and its answer; ``good`` None: there was nothing to judge."""

    question: str
    good: bool | None
    numbers: str


def verdicts(
    records: list[dict], guard: GuardSettings, prototypes: int, evaluation: dict
) -> list[Verdict]:
    """All verdicts on a run, from its metrics and the ``evaluation`` of its teacher
    (``probes.evaluate``)."""
    return [
        finite(records),
        falling(records),
        entropy(records, guard, prototypes),
        spread(records, guard, prototypes),
        rank(evaluation["teacher"]["effective_rank"]),
    ]


def finite(records: list[dict]) -> Verdict:
    """Every loss term of every step is a number, and every update was made."""
    names = sorted({name for record in records for name in record if name.split("/")[0] == "loss"})
    broken = {
        name: missing
        for name in names
        if (missing := int((~np.isfinite(series(records, name))).sum()))
    }
    skipped = sum(not record["applied"] for record in records)
    worst = (
        f"; most often {max(broken, key=broken.get)}, at {max(broken.values())} steps"
        if broken
        else ""
    )
    return Verdict(
        "Are all loss terms finite?",
        not broken and not skipped,
        f"{len(names) - len(broken)} of {len(names)} terms finite at all {len(records)} steps{worst}; "
        f"{skipped} updates skipped",
    )


def falling(records: list[dict]) -> Verdict:
    """The mean total of the last tenth of the steps lies under that of the first tenth, among steps
    that compare."""
    question, values = "Does the total loss fall?", measured(records, "loss")
    first, last = ends(values)
    if len(records) < 2 or not math.isfinite(first):
        return Verdict(question, None, f"{len(records)} steps, too few finite values to compare")
    if not math.isfinite(last):
        return Verdict(
            question,
            False,
            f"mean {first:.3f} over the first {tenth(len(records))} steps, none finite at the end",
        )
    left_out = len(records) - int(np.isfinite(values).sum())
    which = (
        f"; {left_out} steps left out, their batch could not measure every term" if left_out else ""
    )
    change = f", {100 * (last - first) / abs(first):+.1f} %" if first else ""
    return Verdict(
        question,
        last < first,
        f"mean {first:.3f} over the first {tenth(len(records))} steps, {last:.3f} "
        f"over the last{change}{which}",
    )


def entropy(records: list[dict], guard: GuardSettings, prototypes: int) -> Verdict:
    """No head's target is one prototype for sure, none says nothing (last tenth of the steps)."""
    return _bounded(
        "Does each teacher head decide, without being blindly sure?",
        "entropy of a target",
        _shares(records, "entropy", prototypes),
        guard.entropy_low,
        guard.entropy_high,
    )


def spread(records: list[dict], guard: GuardSettings, prototypes: int) -> Verdict:
    """No head gives all rows the same prototype (last tenth of the steps)."""
    return _bounded(
        "Does no teacher head fall on one prototype?",
        "entropy of the mean target",
        _shares(records, "mean_entropy", prototypes),
        guard.entropy_low,
        math.inf,
    )


def rank(ranks: dict[str, float | None]) -> Verdict:
    """Every feature varies in more than one direction."""
    question = "Is the effective rank of every feature above 1?"
    if not ranks:
        return Verdict(question, None, "fewer than two samples of each modality")
    return Verdict(
        question,
        all(value is not None and value > 1 for value in ranks.values()),
        ", ".join(
            f"{name} {'not finite' if value is None else f'{value:.2f}'}"
            for name, value in ranks.items()
        ),
    )


def ends(values: np.ndarray) -> tuple[float, float]:
    """Means of the first and of the last tenth; NaN where one of them has no finite value."""
    count = tenth(len(values))
    return tuple(
        float(part[np.isfinite(part)].mean()) if np.isfinite(part).any() else math.nan
        for part in (values[:count], values[-count:])
    )


def _shares(records: list[dict], kind: str, prototypes: int) -> dict[str, float]:
    """Head -> mean over the last tenth as a share of log K; heads without anything measured there
    are left out."""
    found = {
        head: ends(measured(records, f"teacher/{head}/{kind}"))[1] / math.log(prototypes)
        for head in heads(records)
    }
    return {head: value for head, value in found.items() if math.isfinite(value)}


def _bounded(
    question: str, what: str, shares: dict[str, float], low: float, high: float
) -> Verdict:
    """All shares lie between the bounds."""
    if not shares:
        return Verdict(
            question, None, "no head had anything to measure in the last tenth of the steps"
        )
    outside = [head for head, share in shares.items() if not low < share < high]
    wanted = f"wanted above {low:g}" + (f" and below {high:g}" if math.isfinite(high) else "")
    return Verdict(
        question,
        not outside,
        f"{what} / log K: {min(shares.values()):.3f} to {max(shares.values()):.3f} over {len(shares)} "
        f"heads; {wanted}" + (f"; outside: {', '.join(outside)}" if outside else ""),
    )
