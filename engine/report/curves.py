"""Charts over the steps of a run: losses, schedules, speed, the teacher's targets."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.pages.style import FAINT, PLAIN, colour
from engine.evaluate.held_out import KNN_KEY, NEIGHBOURS, RANK_KEY, STEPS_KEY
from engine.report.history import History
from engine.report.panels import (
    draw_limit,
    draw_line,
    finish_panels,
    group_means,
    panel_grid,
)
from engine.training.loss_terms import QSACL, LossTerm, TeacherHead, dropped_key
from models.moe.loads import TokenKind

LEAST_COLUMNS = 4  # of the panels of losses
TEACHER_HEIGHT = 1.75  # inches a row
LINE_STYLES = ("-", "--", ":")  # of the levels of one feature
SCHEDULES = (
    ("lr", "learning rate"),
    ("weight_decay", "weight decay"),
    ("momentum", "teacher momentum"),
    ("teacher_temperature", "teacher temperature"),
)


def losses(history: History, prototypes: int) -> Figure:
    """Draw a panel for each loss term.

    The total and single terms are on top, then a row for each level and a column for each feature.

    Args:
        history: the run's records.
        prototypes: K; a dashed line marks log K.
    """
    single = []
    rows: dict[str, list[LossTerm]] = {}  # level -> its terms, a feature each
    for term in history.loss_terms():
        if term.granular:
            rows.setdefault(term.level, []).append(term)
        else:
            single.append(term)
    columns = max(LEAST_COLUMNS, max(map(len, rows.values()), default=0))
    top = -(-(1 + len(single)) // columns)
    figure, axes = panel_grid(top + len(rows), columns)
    first, *others = axes[:top].ravel()
    draw_line(first, history.steps, history.total(), shade=PLAIN, title="total, weighted")
    for axis, term in zip(others, single):
        draw_line(axis, history.steps, history.term(term), shade=PLAIN, title=term.name)
        if term == QSACL:
            draw_limit(axis, math.log(prototypes))
    for panels, terms in zip(axes[top:], rows.values()):
        for axis, term in zip(panels, terms):
            draw_line(
                axis,
                history.steps,
                history.term(term),
                shade=colour(term.feature),
                title=f"{term.feature}, {term.level} level",
            )
            draw_limit(axis, math.log(prototypes))
    finish_panels(axes)
    return figure


def schedules(history: History) -> Figure:
    """Draw learning rate, weight decay, teacher momentum and teacher temperature."""
    figure, axes = panel_grid(1, len(SCHEDULES))
    for axis, (key, title) in zip(axes.ravel(), SCHEDULES):
        x, y = group_means(history.steps, history.values(key))
        axis.plot(x, y, color=PLAIN)
        axis.set_title(title)
    finish_panels(axes)
    return figure


def speed(history: History) -> Figure:
    """Draw gradient norm, samples a second, and the share of a step spent waiting for data."""
    figure, axes = panel_grid(1, 3)
    norm, rate, wait = axes.ravel()
    norms = history.values("gradient_norm")
    draw_line(norm, history.steps, norms, shade=PLAIN, title="gradient norm before clipping")
    if np.nanmax(norms, initial=0) > 0:
        norm.set_yscale("log")
    draw_line(
        rate,
        history.steps,
        history.values("samples_per_second"),
        shade=PLAIN,
        title="samples a second, all ranks",
    )
    rate.set_ylim(bottom=0)
    draw_line(
        wait,
        history.steps,
        100 * history.values("data_wait"),
        shade=PLAIN,
        title="waiting for data, % of the step",
    )
    wait.set_ylim(0, 100)
    finish_panels(axes)
    return figure


def teacher(history: History, prototypes: int) -> Figure:
    """Draw what the teacher's targets say: a row for each feature, a line for each level.

    The panels of a row show the entropy of a target and of the mean target, both as shares of
    log K, and the number of prototypes that are used.

    Args:
        history: the run's records.
        prototypes: K.
    """
    by_feature: dict[str, list[TeacherHead]] = {}
    for head in history.teacher_heads():
        by_feature.setdefault(head.feature, []).append(head)
    figure, axes = panel_grid(len(by_feature), 3, height=TEACHER_HEIGHT)
    share = 1 / math.log(prototypes)
    for (entropy, mean_entropy, used), (feature, heads) in zip(axes, by_feature.items()):
        for head, style in zip(heads, LINE_STYLES):
            lines = (
                (entropy, share * history.teacher(head, head.entropy)),
                (mean_entropy, share * history.teacher(head, head.mean_entropy)),
                (used, prototypes * history.teacher(head, head.used)),
            )
            for axis, values in lines:
                x, y = group_means(history.steps, values)
                axis.plot(x, y, style, color=colour(feature), linewidth=1.3, label=head.level)
        _set_top(entropy, 1, title=f"{feature}: entropy of one target / log K")
        _set_top(mean_entropy, 1, title=f"{feature}: entropy of the mean target / log K")
        used_title = f"{feature}: prototypes used in a step, of {prototypes}"
        _set_top(used, prototypes, title=used_title)
        used.legend(fontsize=7.5, loc="upper right", ncols=3, handlelength=1.8, columnspacing=1)
    finish_panels(axes)
    return figure


def dropped(history: History, limit: float) -> Figure:
    """Draw the share of tokens that the experts dropped: a panel a view size, a line a sensor.

    Args:
        history: the run's records.
        limit: of the guard; a dashed line marks it.
    """
    by_view: dict[str, list[TokenKind]] = {}
    for kind in history.token_kinds():
        by_view.setdefault(kind.view, []).append(kind)
    figure, axes = panel_grid(1, len(by_view))
    top = limit
    for axis, (view, kinds) in zip(axes.ravel(), by_view.items()):
        for kind in kinds:
            x, y = group_means(history.steps, history.values(dropped_key(kind)))
            axis.plot(x, 100 * y, color=colour(kind.modality), linewidth=1.3, label=kind.modality)
            top = max(top, np.nanmax(y))
        draw_limit(axis, 100 * limit)
        axis.set_title(f"{view} views: tokens dropped, %")
        axis.legend(fontsize=7.5, ncols=len(kinds))
    for axis in axes.ravel():
        axis.set_ylim(0, 110 * top)
    finish_panels(axes)
    return figure


def _set_top(axis: Axes, top: float, *, title: str) -> None:
    """Draw a line at the greatest possible value, and leave some room above it and under 0."""
    axis.axhline(top, color=FAINT, linewidth=1, zorder=0)
    axis.set_ylim(-0.03 * top, 1.08 * top)
    axis.set_title(title)


def evaluations(history: History) -> Figure | None:
    """Draw what held-out tiles said over the steps: k-NN, and effective ranks; None without any."""
    steps = history.values(STEPS_KEY)
    measured = np.isfinite(steps)
    if not measured.any():
        return None
    figure, axes = panel_grid(1, 2, height=TEACHER_HEIGHT + 0.6)
    panels = (
        (axes[0, 0], KNN_KEY, f"{NEIGHBOURS}-NN on held-out tiles, %", 100),
        (axes[0, 1], RANK_KEY, "effective rank on held-out tiles", 1),
    )
    for axis, prefix, title, scale in panels:
        for key in history.keys_with(prefix):
            name = key.removeprefix(prefix)
            values = scale * history.values(key)[measured]
            axis.plot(steps[measured], values, ".-", linewidth=1.3, label=name)
        if axis.has_data():
            axis.legend(fontsize=7.5, ncols=2)
        axis.set_title(title)
    finish_panels(axes)
    return figure
