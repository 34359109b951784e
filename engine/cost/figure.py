"""The cost of a training step as a picture: what the forward pass consists of, and how the passes
compare."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from data.pages.style import WIDTH
from engine.config.settings import Settings
from engine.cost.count import GIGA, PASSES, StepCosts, view_sizes
from models.count.flops import Cost
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


def family(module: str) -> str:
    """What a module of the forward pass is drawn as."""
    if module.endswith(("experts", "gate")):
        return "experts"
    return next((name for name in COLOURS if module.startswith(name)), "other")


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
    sizes, names = view_sizes(settings.data.views), [*settings.model.modalities, FUSED]
    for group, (size, (views, cells)) in enumerate(sizes.items()):
        first = group * (len(names) + 0.8)
        for place, modality in enumerate(names):
            mine = [
                cost for cost in costs.forward if (cost.view, cost.modality) == (size, modality)
            ]
            _stack(axis.bar, first + place, _by_family(mine, "flops"))
            value = sum(cost.flops for cost in mine) / GIGA
            axis.annotate(
                short(value),
                (first + place, value),
                (0, 2),
                textcoords="offset points",
                ha="center",
            )
            axis.annotate(
                modality, (first + place, 0), (0, -11), textcoords="offset points", ha="center"
            )
        axis.annotate(
            f"{size}: {views} views of {cells} x {cells} cells",
            (first + (len(names) - 1) / 2, 0),
            (0, -25),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
    axis.set(xticks=[], ylabel="GFLOPs", title="Forward of one model")
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.margins(y=0.08)
    axis.grid(False, axis="x")


def _pass_bars(axis: Axes, costs: StepCosts) -> None:
    """One bar a pass, the first on top."""
    flops = costs.flops
    parts = {
        "student_forward": _by_family(costs.forward, "flops"),
        "teacher_forward": _by_family(costs.forward, "flops"),
        "heads": {"heads and losses": flops.heads},
        "backward": _by_family(costs.forward, "backward")
        | {"heads and losses": sum(cost.backward for cost in costs.losses)},
        "recomputation": _by_family(costs.forward, "recomputed")
        | {"heads and losses": sum(cost.recomputed for cost in costs.losses)},
    }
    for place, (key, values) in enumerate(parts.items()):
        _stack(axis.barh, -place, values)
        value = getattr(flops, key)
        label = f"{short(value / GIGA)} ({100 * value / flops.hardware:.1f} %)" if value else "none"
        axis.annotate(
            label, (value / GIGA, -place), (4, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks([-place for place in range(len(PASSES))], PASSES.values())
    axis.set(
        xlabel="GFLOPs",
        title=f"Passes of a training step: {short(flops.model / GIGA)} GFLOPs of the model",
    )
    axis.set(xlim=(0, 1.4 * flops.backward / GIGA), ylim=(0.4 - len(parts), 0.6))
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.grid(False, axis="y")


def _by_family(costs: Sequence[Cost], what: str) -> dict[str, float]:
    """Family -> FLOPs, in the order of the colours."""
    totals = dict.fromkeys(COLOURS, 0.0)
    for cost in costs:
        totals[family(cost.module)] += getattr(cost, what)
    return {name: value for name, value in totals.items() if value}


def _stack(bar: Callable, place: float, values: dict[str, float]) -> None:
    """One stacked bar, by ``Axes.bar`` or ``Axes.barh``."""
    edge = "bottom" if bar.__name__ == "bar" else "left"
    below = 0.0
    for name, value in values.items():
        bar(place, value / GIGA, 0.78, **{edge: below}, color=COLOURS[name], linewidth=0)
        below += value / GIGA


def short(value: float) -> str:
    """Few digits, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
