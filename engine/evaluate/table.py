"""An answer as text: a table for each probe, the sweep over k, and the verdicts."""

import itertools
from collections.abc import Sequence

from engine.evaluate.intervals import Interval
from engine.evaluate.judge import Row
from engine.evaluate.run import Answer

NAME_WIDTH = 24
FIGURE_WIDTH = 24
MOST_CHOSEN = 3  # choices shown a row


def text(answer: Answer) -> str:
    """Everything that a reader of the terminal needs."""
    lines = [
        f"{answer.kind} of {answer.data}, {len(answer.classes)} classes, "
        f"{answer.items} items of {answer.tiles} tiles in {answer.groups} groups",
        f"parts of the first seed: {'; '.join(answer.parts)}",
        f"always the commonest class: {_percent(answer.commonest)} of the items",
        "in percent, with 95 % intervals over the groups of the test part; means over the seeds",
    ]
    for name, rows in answer.rows.items():
        lines += ["", *_table(name, rows)]
    lines += ["", *_sweep(answer)]
    lines += ["", *[f"verdict: {comparison}" for comparison in answer.comparisons]]
    if answer.problems:
        lines.append(f"{len(answer.problems)} tiles could not be read: {answer.problems[0]}")
    return "\n".join(lines)


def _table(probe: str, rows: Sequence[Row]) -> list[str]:
    """A line for each method."""
    names = list(rows[0].figures)
    head = f"{probe:<{NAME_WIDTH}}" + "".join(f"{name:<{FIGURE_WIDTH}}" for name in names)
    lines = [head + "chosen on validation"]
    for row in rows:
        figures = [f"{_figure(row.figures[name]):<{FIGURE_WIDTH}}" for name in names]
        chosen = list(dict.fromkeys(row.chosen))
        shown = "; ".join(chosen[:MOST_CHOSEN])
        if len(chosen) > MOST_CHOSEN:
            shown += f"; {len(chosen) - MOST_CHOSEN} more"
        lines.append(f"{row.method:<{NAME_WIDTH}}" + "".join(figures) + shown)
    return lines


def _sweep(answer: Answer) -> list[str]:
    """k-NN by the number of neighbours; nothing is chosen by it."""
    every_row = itertools.chain.from_iterable(answer.rows.values())
    rows = [row for row in every_row if row.sweep]
    measure = next(iter(rows[0].figures))
    neighbours = rows[0].sweep
    head = f"{'k-NN, ' + measure:<{NAME_WIDTH}}" + "".join(f"{k:>8}" for k in neighbours)
    lines = [head]
    for row in rows:
        values = "".join(f"{_percent(value):>8}" for value in row.sweep.values())
        lines.append(f"{row.method:<{NAME_WIDTH}}{values}")
    return lines


def _figure(figure: Interval) -> str:
    """A figure and its interval."""
    return f"{_percent(figure.value)} [{_percent(figure.low)}, {_percent(figure.high)}]"


def _percent(share: float) -> str:
    """In percent, one decimal."""
    return f"{100 * share:.1f}"
