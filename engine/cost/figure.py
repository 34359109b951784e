"""The FLOPs of a training step as a picture: the forward pass by module, and the passes."""

from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from data.pages.style import WIDTH
from engine.config.settings import Settings
from engine.cost.count import GIGA, PASSES, StepCosts, view_sizes
from models.count.cost import Cost, add_up, of_images
from models.features import FUSED

# Families of modules; a module belongs to the one whose name it begins with.
COLOURS = {
    "stage 1": "#c3d9ee",
    "stage 2": "#86b4d9",
    "stage 3": "#3d6fb6",
    "stage 4": "#1f3f77",
    "experts": "#e8a33d",
    "fusion": "#7b4fa3",
    "other": "#b8c4cc",
    "heads and losses": "#d1495b",
}
HEADS = "heads and losses"


def family(module: str) -> str:
    """The key of ``COLOURS`` that a module of the forward pass is drawn in."""
    if module.endswith(("experts", "gate")):
        return "experts"
    for name in COLOURS:
        if module.startswith(name):
            return name
    return "other"


def picture(name: str, settings: Settings, costs: StepCosts) -> Figure:
    """Left: the forward pass by view size and modality. Right: the passes of a step."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(10, 9))
    _forward_bars(left, settings, costs)
    _pass_bars(right, costs)
    handles = [Patch(color=shade, label=title) for title, shade in COLOURS.items()]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        handlelength=1,
        columnspacing=1.4,
    )
    figure.suptitle(
        f"{name}: FLOPs of one sample (matrix products, multiply-add = 2)", fontsize=10.5
    )
    return figure


def _forward_bars(axis: Axes, settings: Settings, costs: StepCosts) -> None:
    """One bar for each view size and modality."""
    names = [*settings.model.modalities, FUSED]
    for group, (size, (views, pixels)) in enumerate(view_sizes(settings.data.views).items()):
        first = group * (len(names) + 0.8)
        for number, modality in enumerate(names):
            entries = of_images(costs.forward, size, modality)
            _forward_bar(axis, first + number, modality, entries)
            if modality in pixels:
                _below(axis, f"{pixels[modality]} px", first + number, offset=-23)
        middle = first + (len(names) - 1) / 2
        _below(axis, f"{size}: {views} views", middle, offset=-37, weight="bold")
    axis.set(xticks=[], ylabel="GFLOPs", title="Forward of one model")
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.margins(y=0.08)
    axis.grid(False, axis="x")


def _forward_bar(axis: Axes, place: float, modality: str, costs: Sequence[Cost]) -> None:
    """One stacked bar with its height above and its modality below."""
    _stack(axis.bar, place, _by_family(costs, "flops"))
    value = add_up(costs).flops / GIGA
    axis.annotate(short(value), (place, value), (0, 2), textcoords="offset points", ha="center")
    _below(axis, modality, place, offset=-11)


def _below(axis: Axes, text: str, place: float, *, offset: int, weight: str = "normal") -> None:
    """Text below the axis, ``offset`` points from it."""
    axis.annotate(
        text, (place, 0), (0, offset), textcoords="offset points", ha="center", weight=weight
    )


def _pass_bars(axis: Axes, costs: StepCosts) -> None:
    """One bar for each pass, the first on top."""
    flops = costs.flops
    losses = add_up(costs.losses)
    forward = _by_family(costs.forward, "flops")
    backward = _by_family(costs.forward, "backward")
    backward[HEADS] = losses.backward
    recomputation = _by_family(costs.forward, "recomputed")
    recomputation[HEADS] = losses.recomputed
    parts = {
        "student_forward": forward,
        "teacher_forward": forward,
        "heads": {HEADS: flops.heads},
        "backward": backward,
        "recomputation": recomputation,
    }
    for number, (key, values) in enumerate(parts.items()):
        _stack(axis.barh, -number, values)
        value = getattr(flops, key)
        label = "none"
        if value:
            label = f"{short(value / GIGA)} ({100 * value / flops.hardware:.1f} %)"
        axis.annotate(
            label, (value / GIGA, -number), (4, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks(range(0, -len(PASSES), -1), PASSES.values())
    axis.set(
        xlabel="GFLOPs",
        title=f"Passes of a training step: {short(flops.model / GIGA)} GFLOPs of the model",
        xlim=(0, 1.4 * flops.backward / GIGA),
        ylim=(0.4 - len(parts), 0.6),
    )
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.grid(False, axis="y")


def _by_family(costs: Iterable[Cost], field: str) -> dict[str, float]:
    """Family -> sum of one field of the costs, in the order of the colours."""
    totals = dict.fromkeys(COLOURS, 0.0)
    for cost in costs:
        totals[family(cost.module)] += getattr(cost, field)
    return {name: value for name, value in totals.items() if value}


def _stack(bar: Callable, place: float, values: dict[str, float]) -> None:
    """One stacked bar, drawn by ``Axes.bar`` or ``Axes.barh``."""
    edge = "bottom" if bar.__name__ == "bar" else "left"
    below = 0.0
    for name, value in values.items():
        bar(place, value / GIGA, 0.78, **{edge: below}, color=COLOURS[name], linewidth=0)
        below += value / GIGA


def short(value: float) -> str:
    """Few digits, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
