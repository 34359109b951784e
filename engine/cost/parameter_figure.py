"""The size of models as pictures: all variants by module, or one model part by part."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from data.pages.style import PLAIN, WIDTH
from engine.cost.figure import COLOURS as COSTS
from engine.cost.figure import short
from models.count.parameters import Count

MILLION = 1e6
SMALL = 0.001  # parts below this share of the model are left out
COLOURS = {
    "backbone": COSTS["stage 3"],
    "experts": COSTS["experts"],
    "fusion": COSTS["fusion"],
    "geo-context prototypes": "#2e8b57",
    "heads and decoder": COSTS["heads and losses"],
    "tokenizers and prompts": COSTS["other"],
}
PAPER = {"marker": "D", "color": PLAIN, "markersize": 5, "linestyle": "none"}


def family(found: Count) -> str:
    """What a part is drawn as."""
    if found.part.endswith("experts"):
        return "experts"
    if found.part == "geo-context prototypes":
        return found.part
    return {"backbone": "backbone", "fusion": "fusion", "others": "heads and decoder"}.get(
        found.module, "tokenizers and prompts"
    )


def variants_picture(
    counts: Mapping[str, Sequence[Count]], paper: Mapping[str, int | None]
) -> Figure:
    """A stacked bar for each variant, its total, and how much of it is activated. ``paper``:
    totals, by variant."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axis = figure.subplots()
    for place, (name, found) in enumerate(counts.items()):
        active = sum(part.activated for part in found) / MILLION
        whole = sum(part.parameters for part in found) / MILLION
        label = short(whole) + (f", {short(active)} activated" if active < whole else "")
        _bar(axis, place, found, paper[name], label)
    _finish(figure, axis, list(counts), paper.values(), "paper's total")
    axis.set_title("Parameters of the named models (base and small are not the paper's)")
    return figure


def model_picture(title: str, counts: Sequence[Count], paper: Mapping[str, int | None]) -> Figure:
    """A stacked bar for each module and a bar for each of its larger parts. ``paper``: counts, by
    module."""
    whole = sum(found.parameters for found in counts)
    rows: list[
        tuple[str, list[Count], bool]
    ] = []  # name, what it consists of, whether it is a module
    for module in dict.fromkeys(found.module for found in counts):
        parts = [found for found in counts if found.module == module]
        rows.append((module, parts, True))
        rows += [
            (found.part, [found], False) for found in parts if found.parameters >= SMALL * whole
        ]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.19 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, (name, parts, is_module) in enumerate(rows):
        value = sum(found.parameters for found in parts)
        label = f"{short(value / MILLION)} ({100 * value / whole:.2g} %)"
        _bar(axis, place, parts, paper[name] if is_module else None, label, bold=is_module)
    _finish(
        figure, axis, [name for name, _, _ in rows], paper.values(), "paper's count of the module"
    )
    for tick, (_, _, is_module) in zip(axis.get_yticklabels(), rows):
        tick.set(weight="bold" if is_module else "normal", fontsize=8)
    axis.set_title(
        f"{title}: {short(whole / MILLION)} million parameters, parts above {100 * SMALL:g} %"
    )
    return figure


def _bar(
    axis: Axes,
    place: int,
    parts: Sequence[Count],
    paper: int | None,
    label: str,
    bold: bool = False,
) -> None:
    """One bar stacked by family, the paper's count as a diamond, and a label behind both."""
    right = 0.0
    for kind, shade in COLOURS.items():
        value = sum(found.parameters for found in parts if family(found) == kind) / MILLION
        axis.barh(place, value, 0.72, left=right, color=shade, linewidth=0)
        right += value
    if paper is not None:
        axis.plot(paper / MILLION, place, **PAPER)
        right = max(right, paper / MILLION)
    axis.annotate(
        label,
        (right, place),
        (8, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        weight="bold" if bold else "normal",
    )


def _finish(
    figure: Figure, axis: Axes, names: Sequence[str], paper: Iterable[int | None], title: str
) -> None:
    """Names, legend and scale, with room for the labels at the right."""
    handles: list[Patch | Line2D] = [
        Patch(color=shade, label=name) for name, shade in COLOURS.items()
    ]
    if any(value is not None for value in paper):
        handles.append(Line2D([], [], label=title, **PAPER))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        handlelength=1,
        columnspacing=1.4,
    )
    axis.set_yticks(range(len(names)), names)
    axis.set(
        xlabel="million parameters", ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.19 * axis.dataLim.x1)
    )
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.grid(False, axis="y")
