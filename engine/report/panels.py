"""What the charts of a run have in common: a grid of panels, lines over steps, running means."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.pages.style import WIDTH

POINTS = 600  # drawn along a line; more steps are averaged in groups
DOTTED = 200  # a line of fewer points shows each as a dot
SMOOTHED = 30  # the running mean reaches this part of the steps to both sides
PANEL_HEIGHT = 1.9  # inches
MARGIN = 0.35  # inches above the panels
LIMIT_COLOUR = "#455a64"
EMPTY_COLOUR = "#888888"
DASHES = (0, (4, 3))


def panel_grid(
    rows: int, columns: int, *, height: float = PANEL_HEIGHT
) -> tuple[Figure, np.ndarray]:
    """A figure of full width and its panels (rows, columns), ``height`` inches a row."""
    figure = Figure(figsize=(WIDTH, MARGIN + height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def finish_panels(axes: np.ndarray) -> None:
    """Hide panels without data; number the steps of the others, and name them under the lowest."""
    for column in axes.T:
        lowest = None
        for axis in column:
            axis.set_visible(axis.has_data())
            if axis.has_data():
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
                lowest = axis
        if lowest is not None:
            lowest.set_xlabel("step")


def draw_line(axis: Axes, steps: np.ndarray, values: np.ndarray, *, shade: str, title: str) -> None:
    """Draw every step as a faint dot or line, and the running mean over it."""
    x, y = group_means(steps, values)
    style = "-"
    if len(x) < DOTTED:
        style = ".-"
    axis.plot(x, y, style, color=shade, alpha=0.3, linewidth=0.8, markersize=3)
    axis.plot(x, running_mean(y), color=shade, linewidth=1.7)
    axis.set_title(title)
    if not np.isfinite(y).any():
        axis.text(
            0.5,
            0.5,
            "nothing measured",
            ha="center",
            va="center",
            transform=axis.transAxes,
            color=EMPTY_COLOUR,
        )


def draw_limit(axis: Axes, value: float) -> None:
    """Draw a dashed line that is always in sight."""
    axis.axhline(value, color=LIMIT_COLOUR, linewidth=1, linestyle=DASHES, zorder=1)


def name_cells(axis: Axes, *, columns: Sequence, rows: Sequence, title: str) -> None:
    """Name the columns and rows of a heat map."""
    axis.grid(False)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_title(title)


def group_means(
    x: np.ndarray, y: np.ndarray, points: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Average groups of neighbouring steps until at most ``points`` are left.

    A group without any value stays NaN.
    """
    if len(x) <= points:
        return x, y
    mean_x = [part.mean() for part in np.array_split(x, points)]
    mean_y = [finite_mean(part) for part in np.array_split(y, points)]
    return np.array(mean_x), np.array(mean_y)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a fifteenth of the steps around each, of the finite values."""
    half = max(1, len(values) // SMOOTHED)
    means = np.empty(len(values))
    for place in range(len(values)):
        means[place] = finite_mean(values[max(0, place - half) : place + half + 1])
    return means


def finite_mean(values: np.ndarray) -> float:
    """Mean of the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan
    return float(finite.mean())
