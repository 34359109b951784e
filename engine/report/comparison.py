"""Runs of the same data and seed beside each other: how far apart their losses are at each step."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.pages.style import PLAIN, WIDTH
from engine.errors import ConfigError
from engine.report.history import History
from engine.training import metrics
from engine.training.loss_terms import LOSS_PREFIX, TOTAL_KEY

COLOURS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed")
COLUMN = 24  # characters of the table

# Label of each run but the first -> key of a loss term -> difference from the first run, (steps,).
Differences = Mapping[str, Mapping[str, np.ndarray]]


def read(folders: Mapping[str, Path]) -> dict[str, History]:
    """Read runs of the same loss terms, cut to the steps that all of them have.

    Args:
        folders: run folder of each label. The first run is the reference.

    Raises:
        ConfigError: a folder has no records, or other terms than the first, or there is no step
            that all runs have.
    """
    runs: dict[str, History] = {}
    for label, folder in folders.items():
        records = metrics.read(folder)
        if not records:
            raise ConfigError(
                f"{folder}: expected at least one step in {metrics.FILE}, found none; train first"
            )
        runs[label] = History(records)
    first_label, *others = runs
    for label in others:
        expected = terms(runs[first_label])
        found = terms(runs[label])
        if found != expected:
            raise ConfigError(
                f"{folders[label]}: expected the losses of {folders[first_label]},"
                f" {_ends(expected)}, found {_ends(found)}; compare runs of one model"
            )
    return _common_steps(runs, folders)


def _common_steps(runs: Mapping[str, History], folders: Mapping[str, Path]) -> dict[str, History]:
    """The runs cut to the steps that all of them have."""
    common = set.intersection(*(set(run.steps.tolist()) for run in runs.values()))
    if not common:
        spans = []
        for label, run in runs.items():
            spans.append(f"{folders[label]} has {_ends(run.steps.tolist())}")
        raise ConfigError(f"runs: expected steps in common, found none: {'; '.join(spans)}")
    cut = {}
    for label, run in runs.items():
        cut[label] = History([record for record in run.records if record["step"] in common])
    return cut


def steps_line(runs: Mapping[str, History]) -> str:
    """Which steps are compared."""
    steps = next(iter(runs.values())).steps.tolist()
    return f"steps that all runs have: {_ends(steps)}"


def _ends(values: list) -> str:
    """The first and the last of a list, and its length."""
    return f"{values[0]} to {values[-1]} ({len(values)})"


def terms(run: History) -> list[str]:
    """Keys of the total and of its terms."""
    return [TOTAL_KEY] + [term.key for term in run.loss_terms()]


def distances(runs: Mapping[str, History]) -> Differences:
    """Relative differences from the first run.

    A value that neither run has (not finite, or zero in both because a modality is missing) is no
    difference.
    """
    first_label, *others = runs
    first = runs[first_label]
    differences: dict[str, dict[str, np.ndarray]] = {}
    for label in others:
        run = runs[label]
        differences[label] = {}
        for key in terms(first):
            differences[label][key] = _relative_difference(run.values(key), first.values(key))
    return differences


def _relative_difference(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Difference of each value relative to its reference; infinite where only one is a number."""
    same = (values == reference) | (np.isnan(values) & np.isnan(reference))
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.abs(values - reference) / np.abs(reference)
    difference = np.where(np.isnan(difference), np.inf, difference)
    return np.where(same, 0.0, difference)


def table(differences: Differences) -> str:
    """Median and largest relative difference of every term, a pair of columns for each run."""
    labels = list(differences)
    half = COLUMN // 2
    heads = "".join(f"{label:>{COLUMN}}" for label in labels)
    lines = [
        f"{'relative difference':{COLUMN}}{heads}",
        " " * COLUMN + f"{'median':>{half}}{'largest':>{half}}" * len(labels),
    ]
    for key in differences[labels[0]]:
        title = "total"
        if key != TOTAL_KEY:
            title = key.removeprefix(LOSS_PREFIX)
        line = f"{title:{COLUMN}}"
        for label in labels:
            difference = differences[label][key]
            line += f"{np.median(difference):{half}.1e}{difference.max():{half}.1e}"
        lines.append(line)
    return "\n".join(lines)


def draw(runs: Mapping[str, History], differences: Differences) -> Figure:
    """Draw the totals over each other, and below how far any term is from the first run."""
    figure = Figure(figsize=(WIDTH, 0.62 * WIDTH), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    first_label, *others = runs
    _draw_total(above, runs[first_label], label=first_label, shade=PLAIN, width=3.5)
    for place, label in enumerate(others):
        run = runs[label]
        shade = COLOURS[place % len(COLOURS)]
        _draw_total(above, run, label=label, shade=shade, width=2.5 - place)
        largest = np.max(list(differences[label].values()), axis=0)
        visible = np.where(largest > 0, largest, np.nan)
        below.plot(run.steps, visible, ".-", color=shade, label=f"{label}, largest term")
    above.set(ylabel="loss, total")
    above.legend()
    below.set(xlabel="step", ylabel=f"relative difference\nfrom {first_label}", yscale="log")
    below.legend()
    return figure


def _draw_total(axis: Axes, run: History, *, label: str, shade: str, width: float) -> None:
    axis.plot(
        run.steps, run.values(TOTAL_KEY), color=shade, label=label, linewidth=width, alpha=0.8
    )
