"""Runs of the same data and seed beside each other, step by step: how far apart their losses are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from data.pages.style import PLAIN, WIDTH
from engine.errors import ConfigError
from engine.report.figures import series
from engine.training import metrics

COLOURS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed")


def read(folders: Mapping[str, Path]) -> dict[str, list[dict]]:
    """Records of every run by its label, all of the same steps and loss terms, the first run being
    the reference.

    Raises ConfigError for a folder without records, or one of other steps or terms than the first.
    """
    runs = {}
    for label, folder in folders.items():
        runs[label] = metrics.read(folder)
        if not runs[label]:
            raise ConfigError(
                f"{folder}: expected a step at least in {metrics.FILE}, found none; train first"
            )
        first = next(iter(runs.values()))
        for what, mine, wanted in (
            ("steps", _steps(runs[label]), _steps(first)),
            ("losses", terms(runs[label]), terms(first)),
        ):
            if mine != wanted:
                raise ConfigError(
                    f"{folder}: expected the {what} of {next(iter(folders.values()))}, {_short(wanted)}, "
                    f"found {_short(mine)}; compare runs of one length and model"
                )
    return runs


def terms(records: list[dict]) -> list[str]:
    """Names of the total and of its terms."""
    return ["loss"] + [name for name in records[-1] if name.startswith("loss/")]


def distances(runs: Mapping[str, list[dict]]) -> dict[str, dict[str, np.ndarray]]:
    """Label of each run but the first -> loss term -> (steps,) difference from the first run,
    relative to it.

    A value that neither run has (not finite, or zero in both for want of a modality) is no
    difference.
    """
    first, *others = runs
    found = {}
    for label in others:
        found[label] = {}
        for name in terms(runs[first]):
            here, there = series(runs[label], name), series(runs[first], name)
            alike = (here == there) | (np.isnan(here) & np.isnan(there))
            with np.errstate(divide="ignore", invalid="ignore"):
                apart = np.abs(here - there) / np.abs(there)
            found[label][name] = np.where(alike, 0.0, np.where(np.isnan(apart), np.inf, apart))
    return found


def table(found: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Median and largest relative difference of every term, a pair of columns a run."""
    lines = [
        f"{'relative difference':24}" + "".join(f"{label:>24}" for label in found),
        f"{'':24}" + f"{'median':>12}{'largest':>12}" * len(found),
    ]
    for name in next(iter(found.values())):
        cells = "".join(
            f"{np.median(by[name]):12.1e}{by[name].max():12.1e}" for by in found.values()
        )
        lines.append(f"{name.removeprefix('loss/') if name != 'loss' else 'total':24}{cells}")
    return "\n".join(lines)


def draw(runs: Mapping[str, list[dict]], found: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """The totals on top of each other; below, on a logarithmic axis, how far any term is from the
    first run."""
    figure = Figure(figsize=(WIDTH, 0.62 * WIDTH), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = _steps(next(iter(runs.values())))
    for place, (label, records) in enumerate(runs.items()):
        colour = COLOURS[(place - 1) % len(COLOURS)] if place else PLAIN
        above.plot(
            steps,
            series(records, "loss"),
            color=colour,
            label=label,
            linewidth=3.5 - place,
            alpha=0.8,
        )
        if place:
            apart = np.max([found[label][name] for name in terms(records)], axis=0)
            below.plot(
                steps,
                np.where(apart > 0, apart, np.nan),
                ".-",
                color=colour,
                label=f"{label}, largest term",
            )
    above.set(ylabel="loss, total")
    above.legend()
    below.set(xlabel="step", ylabel=f"relative difference\nfrom {next(iter(runs))}", yscale="log")
    below.legend()
    return figure


def _steps(records: list[dict]) -> list[int]:
    return [record["step"] for record in records]


def _short(values: list) -> str:
    """The first and last of a list."""
    return f"{values[0]} to {values[-1]} ({len(values)})"
