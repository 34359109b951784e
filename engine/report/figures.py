"""Charts of a run's metrics: losses, schedules, speed, the teacher's targets, expert load. Each
returns a Figure."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.pages.style import FAINT, PLAIN, WIDTH, colour

POINTS = 600  # drawn along a line; more steps are averaged in bins
COLUMNS = 120  # of a heat map over time


def series(records: list[dict], name: str) -> np.ndarray:
    """One value a record, float64; NaN where the record has none (JSON has no NaN: the writer says
    null)."""
    return np.array(
        [math.nan if record.get(name) is None else record[name] for record in records], np.float64
    )


def measured(records: list[dict], name: str) -> np.ndarray:
    """``series`` of a loss or teacher figure, NaN at steps whose batch had nothing to measure it
    on.

    The total counts where all its terms do, so that steps compare, unless that is less than half of
    them."""
    values = series(records, name)
    if name == "loss":
        whole = complete(records)
        return np.where(whole, values, math.nan) if 2 * whole.sum() >= len(records) else values
    return np.where(_without(records, name), math.nan, values)


def complete(records: list[dict]) -> np.ndarray:
    """Steps whose batch could measure every term: (steps,) bool."""
    lacks = [_without(records, name) for name in records[-1] if name.startswith("loss/")]
    return ~np.logical_or.reduce(lacks) if lacks else np.ones(len(records), bool)


def _without(records: list[dict], name: str) -> np.ndarray:
    """Steps whose batch had nothing to measure this on: (steps,) bool.

    A batch without a modality gives its losses and entropies as 0; its share of used prototypes, 0
    only then, tells. A batch without labels gives a text alignment of exactly 0."""
    if name == "loss/ita":
        return series(records, name) == 0
    kind, _, rest = name.partition("/")
    if kind == "teacher":
        head = rest.rpartition("/")[0]
    else:
        head = "queries" if rest == "qsacl" else rest.removeprefix("mgcl/")
    return series(records, f"teacher/{head}/used") == 0  # a term without a head: NaN, never 0


def losses(records: list[dict], prototypes: int) -> Figure:
    """Small multiples: the total and single terms on top, then a row for each level, a column for
    each feature."""
    names = [name for name in records[-1] if name.startswith("loss/")]
    granular = [name.split("/")[2:] for name in names if name.startswith("loss/mgcl/")]
    features, levels = (
        (list(dict.fromkeys(column)) for column in zip(*granular)) if granular else ([], [])
    )
    single = ["loss"] + [name for name in names if not name.startswith("loss/mgcl/")]
    columns = max(4, len(features))
    top = -(-len(single) // columns)
    figure, axes = _grid(top + len(levels), columns)
    for axis, name in zip(axes[:top].flat, single):
        _line(
            axis,
            records,
            measured(records, name),
            PLAIN,
            "total, weighted" if name == "loss" else name[5:],
        )
        if name == "loss/qsacl":
            _limit(axis, math.log(prototypes))
    for row, level in zip(axes[top:], levels):
        for axis, feature in zip(row, features):
            _line(
                axis,
                records,
                measured(records, f"loss/mgcl/{feature}/{level}"),
                colour(feature),
                f"{feature}, {level} level",
            )
            _limit(axis, math.log(prototypes))
    return _finish(figure, axes)


def schedules(records: list[dict]) -> Figure:
    """Learning rate, weight decay, teacher momentum, teacher temperature."""
    names = [
        ("lr", "learning rate"),
        ("weight_decay", "weight decay"),
        ("momentum", "teacher momentum"),
        ("teacher_temperature", "teacher temperature"),
    ]
    figure, axes = _grid(1, 4)
    for axis, (name, title) in zip(axes.flat, names):
        axis.plot(*binned(steps(records), series(records, name)), color=PLAIN)
        axis.set_title(title)
    return _finish(figure, axes)


def speed(records: list[dict]) -> Figure:
    """Gradient norm (logarithmic), samples a second, share of the step spent waiting for data."""
    figure, axes = _grid(1, 3)
    norm, rate, wait = axes.flat
    _line(norm, records, series(records, "gradient_norm"), PLAIN, "gradient norm before clipping")
    if np.nanmax(series(records, "gradient_norm"), initial=0) > 0:
        norm.set_yscale("log")
    _line(
        rate, records, series(records, "samples_per_second"), PLAIN, "samples a second, all ranks"
    )
    rate.set_ylim(bottom=0)
    _line(
        wait, records, 100 * series(records, "data_wait"), PLAIN, "waiting for data, % of the step"
    )
    wait.set_ylim(0, 100)
    return _finish(figure, axes)


def heads(records: list[dict]) -> list[str]:
    """Names of the heads whose teacher targets are recorded, such as "hr/pixel" or "queries"."""
    return [
        name[len("teacher/") : -len("/used")]
        for name in records[-1]
        if name.startswith("teacher/") and name.endswith("/used")
    ]


def teacher(records: list[dict], prototypes: int) -> Figure:
    """Entropy of a target, entropy of the mean target (both as shares of log K), prototypes used: a
    row a feature."""
    by_feature: dict[str, list[str]] = {}
    for head in heads(records):
        by_feature.setdefault(head.partition("/")[0], []).append(head)
    kinds = [
        ("entropy", 1 / math.log(prototypes), "entropy of one target / log K"),
        ("mean_entropy", 1 / math.log(prototypes), "entropy of the mean target / log K"),
        ("used", prototypes, f"prototypes used in a step, of {prototypes}"),
    ]
    figure, axes = _grid(len(by_feature), 3, height=1.75)
    for row, (feature, names) in zip(axes, by_feature.items()):
        for axis, (kind, scale, title) in zip(row, kinds):
            for name, line in zip(names, ("-", "--", ":")):
                values = scale * measured(records, f"teacher/{name}/{kind}")
                axis.plot(
                    *binned(steps(records), values),
                    line,
                    color=colour(feature),
                    linewidth=1.3,
                    label=name.partition("/")[2] or name,
                )
            if kind == "used":
                axis.axhline(prototypes, color=FAINT, linewidth=1, zorder=0)
                axis.set_ylim(0, 1.08 * prototypes)
            else:
                axis.axhline(1, color=FAINT, linewidth=1, zorder=0)
                axis.set_ylim(-0.03, 1.08)
            axis.set_title(f"{feature}: {title}")
        row[2].legend(fontsize=7.5, loc="upper right", ncols=3, handlelength=1.8, columnspacing=1)
    return _finish(figure, axes)


def expert_shares(records: list[dict], modalities: Sequence[str]) -> Figure:
    """Heat maps of the last tenth of the steps: a panel a layer, rows are modalities, columns
    experts, each row sums to 100 %."""
    load = _load(records)[-tenth(len(records)) :].sum(0)  # layers modalities E
    share = 100 * load / np.maximum(load.sum(-1, keepdims=True), 1)  # layers modalities E
    columns = min(2 if share.shape[-1] <= 8 else 1, len(share))
    figure, axes = _grid(-(-len(share) // columns), columns, height=0.5 + 0.32 * len(modalities))
    for axis in list(axes.flat)[len(share) :]:
        axis.set_axis_off()
    for layer, (axis, values, count) in enumerate(zip(axes.flat, share, load)):
        image = axis.imshow(values, cmap="YlGnBu", vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axis.text(
                column,
                row,
                f"{value:.0f}" if count[row].sum() else "-",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if value > 55 else "#333333",
            )
        _cells(axis, range(share.shape[-1]), modalities, f"mixture layer {layer + 1}")
        axis.set_xlabel("expert", labelpad=1)
    figure.colorbar(image, ax=axes, label="% of the modality's tokens", fraction=0.03, pad=0.02)
    return figure


def expert_history(records: list[dict], modalities: Sequence[str]) -> Figure:
    """Heat maps over time: a panel a modality and layer, rows are experts, columns steps."""
    load = _load(records)  # steps layers modalities E
    first, last = records[0]["step"], records[-1]["step"] + 1
    groups = np.array_split(load, min(COLUMNS, len(load)))
    binned_load = np.stack([part.sum(0) for part in groups])  # bins layers modalities E
    share = 100 * binned_load / np.maximum(binned_load.sum(-1, keepdims=True), 1)
    share[binned_load.sum(-1) == 0] = np.nan  # nothing of this modality: left white
    figure, axes = _grid(share.shape[1], len(modalities), height=1.35)
    for layer, row in enumerate(axes):
        for index, (axis, name) in enumerate(zip(row, modalities)):
            image = axis.imshow(
                share[:, layer, index].T,
                cmap="YlGnBu",
                vmin=0,
                vmax=100,
                aspect="auto",
                extent=(first, last, share.shape[-1] - 0.5, -0.5),
            )
            axis.grid(False)
            axis.set_title(f"{name}, layer {layer + 1}", fontsize=8.5)
            axis.set_ylabel("expert" if index == 0 else "")
            axis.set_xlabel("step" if layer == len(axes) - 1 else "")
    figure.colorbar(image, ax=axes, label="% of the modality's tokens", fraction=0.03, pad=0.02)
    return figure


def steps(records: list[dict]) -> np.ndarray:
    """The step of each record."""
    return np.array([record["step"] for record in records])


def tenth(count: int) -> int:
    """A tenth of the records, at least one."""
    return max(1, count // 10)


def binned(x: np.ndarray, y: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most ``points`` pairs: means over runs of neighbouring steps; a run without any value
    stays NaN."""
    if len(x) <= points:
        return x, y
    parts = [
        (part_x.mean(), _mean(part_y))
        for part_x, part_y in zip(np.array_split(x, points), np.array_split(y, points))
    ]
    return tuple(np.array(column) for column in zip(*parts))


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are there, NaN if none is."""
    values = values[np.isfinite(values)]
    return values.mean() if len(values) else math.nan


def smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a fifteenth of the steps, of the values that are there."""
    half = max(1, len(values) // 30)
    return np.array([_mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def _line(axis: Axes, records: list[dict], values: np.ndarray, shade: str, title: str) -> None:
    """Every step as a faint dot or line, the running mean over it."""
    x, y = binned(steps(records), values)
    axis.plot(
        x, y, ".-" if len(x) < 200 else "-", color=shade, alpha=0.3, linewidth=0.8, markersize=3
    )
    axis.plot(x, smooth(y), color=shade, linewidth=1.7)
    axis.set_title(title)
    if not np.isfinite(y).any():
        axis.text(
            0.5,
            0.5,
            "nothing measured",
            ha="center",
            va="center",
            transform=axis.transAxes,
            color="#888888",
        )


def _limit(axis: Axes, value: float) -> None:
    """A dashed line that is always in sight."""
    axis.axhline(value, color="#455a64", linewidth=1, linestyle=(0, (4, 3)), zorder=1)


def _load(records: list[dict]) -> np.ndarray:
    """steps layers modalities E."""
    return np.array([record["expert_load"] for record in records], np.float64)


def _cells(axis: Axes, columns: Sequence, rows: Sequence, title: str) -> None:
    """Names at the sides of a heat map."""
    axis.grid(False)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_title(title)


def _grid(rows: int, columns: int, height: float = 1.9) -> tuple[Figure, np.ndarray]:
    """A figure of full width with rows x columns panels, ``height`` inches a row."""
    figure = Figure(figsize=(WIDTH, 0.35 + height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _finish(figure: Figure, axes: np.ndarray) -> Figure:
    """Hide empty panels, name the steps under the lowest ones."""
    for column in axes.T:
        used = [axis for axis in column if axis.has_data()]
        for axis in column:
            axis.set_visible(axis in used)
        if used:
            used[-1].set_xlabel("step")
    return figure
