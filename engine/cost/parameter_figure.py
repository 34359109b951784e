"""The size of models as pictures: all variants by module, or one model part by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from data.pages.style import PLAIN, WIDTH
from engine.cost.figure import COLOURS as COSTS
from engine.cost.figure import short
from engine.cost.paper_counts import MILLION, paper_count
from engine.cost.parameter_rows import TOTAL, select, total, total_activated
from models.count.parameters import MODULES, Count

SMALL = 0.001  # parts below this share of the model are left out
COLOURS = {
    "backbone": COSTS["stage 3"],
    "experts": COSTS["experts"],
    "fusion": COSTS["fusion"],
    "geo-context prototypes": "#2e8b57",
    "heads and decoder": COSTS["heads and losses"],
    "tokenizers and prompts": COSTS["other"],
}
FAMILIES = {"backbone": "backbone", "fusion": "fusion", "others": "heads and decoder"}
PAPER: dict[str, Any] = {"marker": "D", "color": PLAIN, "markersize": 5, "linestyle": "none"}


@dataclass(frozen=True)
class Bar:
    """One bar of a chart."""

    name: str
    counts: Sequence[Count]  # what it is stacked of
    paper: int | None  # the paper's count
    label: str
    bold: bool = False


def family(entry: Count) -> str:
    """The key of ``COLOURS`` that a part is drawn in."""
    if entry.part.endswith("experts"):
        return "experts"
    if entry.part == "geo-context prototypes":
        return entry.part
    return FAMILIES.get(entry.module, "tokenizers and prompts")


def variants_picture(counts: Mapping[str, Sequence[Count]]) -> Figure:
    """A stacked bar for each variant, with its total and how much of it is activated."""
    bars = []
    for name, entries in counts.items():
        whole = total(entries) / MILLION
        active = total_activated(entries) / MILLION
        label = short(whole)
        if active < whole:
            label += f", {short(active)} activated"
        bars.append(Bar(name, entries, paper_count(name, TOTAL), label))
    figure, axis = _chart(bars, height=4.6, paper_title="paper's total")
    axis.set_title("Parameters of the named models (base and small are not the paper's)")
    return figure


def model_picture(title: str, counts: Sequence[Count], variant: str | None) -> Figure:
    """A stacked bar for each module, and a bar for each of its larger parts.

    Args:
        title: name of the model.
        counts: of the model.
        variant: its name among the paper's models, if it is one of them.
    """
    whole = total(counts)
    bars = []
    for module in MODULES:
        parts = select(counts, module)
        if not parts:
            continue
        label = _share(total(parts), whole)
        bars.append(Bar(module, parts, paper_count(variant, module), label, bold=True))
        for entry in parts:
            if entry.parameters >= SMALL * whole:
                bars.append(Bar(entry.part, [entry], None, _share(entry.parameters, whole)))
    height = 1.2 + 0.19 * len(bars)
    figure, axis = _chart(bars, height=height, paper_title="paper's count of the module")
    for tick, bar in zip(axis.get_yticklabels(), bars):
        tick.set(weight="bold" if bar.bold else "normal", fontsize=8)
    axis.set_title(
        f"{title}: {short(whole / MILLION)} million parameters, parts above {100 * SMALL:g} %"
    )
    return figure


def _share(value: int, whole: int) -> str:
    """A count in millions and as a share."""
    return f"{short(value / MILLION)} ({100 * value / whole:.2g} %)"


def _chart(bars: Sequence[Bar], *, height: float, paper_title: str) -> tuple[Figure, Axes]:
    """Bars from top to bottom with names, legend and scale, and room for labels at the right."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axis = figure.subplots()
    names = []
    diamonds = False
    for place, bar in enumerate(bars):
        _draw(axis, place, bar)
        names.append(bar.name)
        diamonds = diamonds or bar.paper is not None
    _legend(figure, paper_title, diamonds=diamonds)
    axis.set_yticks(range(len(bars)), names)
    axis.set(
        xlabel="million parameters", ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.19 * axis.dataLim.x1)
    )
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.grid(False, axis="y")
    return figure, axis


def _draw(axis: Axes, place: int, bar: Bar) -> None:
    """One bar stacked by family, the paper's count as a diamond, and a label to their right."""
    right = 0.0
    for kind, shade in COLOURS.items():
        value = total([entry for entry in bar.counts if family(entry) == kind]) / MILLION
        axis.barh(place, value, 0.72, left=right, color=shade, linewidth=0)
        right += value
    if bar.paper is not None:
        axis.plot(bar.paper / MILLION, place, **PAPER)
        right = max(right, bar.paper / MILLION)
    axis.annotate(
        bar.label,
        (right, place),
        (8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        weight="bold" if bar.bold else "normal",
    )


def _legend(figure: Figure, paper_title: str, *, diamonds: bool) -> None:
    """The families, and the diamond of the paper's counts if any bar has one."""
    handles: list[Patch | Line2D] = []
    for name, shade in COLOURS.items():
        handles.append(Patch(color=shade, label=name))
    if diamonds:
        handles.append(Line2D([], [], label=paper_title, **PAPER))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        handlelength=1,
        columnspacing=1.4,
    )
