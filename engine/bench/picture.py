"""The results of several cases as one picture."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.pages.style import FAINT, FUSED, PLAIN, WIDTH, colour
from engine.bench.case import BOTH, FORWARD
from engine.profile.figure import short

# Colours of the candidates by their place in the case, and of ours.
BAR_COLOURS = (FAINT, colour("sar"), colour("ms"), FUSED, PLAIN)
OURS = colour("hr")
SMALL = 7.5  # font size
BAR = 0.8  # height of a bar; rows are 1 apart


def picture(comparison: dict) -> Figure:
    """A row of panels for each kind of case: times faster than its first candidate, extra memory.

    Args:
        comparison: As the command writes it.
    """
    groups: dict[str, list[dict]] = {}
    for case in comparison["cases"]:
        groups.setdefault(case["case"], []).append(case)
    heights = []
    for cases in groups.values():
        bars = sum(len(_drawn_rows(case)) for case in cases)
        heights.append(1 + len(cases) + bars)
    figure = Figure(figsize=(WIDTH, 0.8 + 0.2 * sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(groups),
        2,
        squeeze=False,
        height_ratios=heights,
        sharey="row",
        gridspec_kw={"width_ratios": (10, 8)},
    )
    for cases, (speed, memory) in zip(groups.values(), panels):
        _draw_group(cases, speed, memory)
    plural = ""
    if comparison["threads"] > 1:
        plural = "s"
    figure.suptitle(
        f"{comparison['device']}, {comparison['threads']} CPU thread{plural}, "
        f"{comparison['rounds']} rounds; copies {comparison['rates']['copy'] / 1e9:.3g} GB/s",
        fontsize=10.5,
    )
    return figure


def _drawn_part(case: dict) -> str:
    """All of a training step where there is a backward pass."""
    if any(row["part"] == BOTH for row in case["rows"]):
        return BOTH
    return FORWARD


def _drawn_rows(case: dict) -> list[dict]:
    """The rows that are drawn."""
    part = _drawn_part(case)
    return [row for row in case["rows"] if row["part"] == part]


def _draw_group(cases: list[dict], speed: Axes, memory: Axes) -> None:
    """One kind of case: its sizes from top to bottom, a bar for each candidate."""
    place = 0
    ticks = []
    names = []
    for case in cases:
        _write_size(speed, case["size"], place)
        place += 1
        for row in _drawn_rows(case):
            shade = _shade(case, row)
            ratio = row["faster"].get(_base(case))
            if ratio:
                _draw_speed(speed, place, row, ratio=ratio, shade=shade)
            _draw_memory(memory, place, row["extra_bytes"] / 1e6, shade=shade)
            ticks.append(place)
            names.append(row["way"])
            place += 1
    first = cases[0]
    part = ""
    if _drawn_rows(first):
        part = _drawn_part(first)
    speed.set_yticks(ticks, names, fontsize=SMALL)
    speed.set_title(f"{first['case']}, {part}: times faster than {_base(first)}")
    memory.set_title("extra memory, MB; results included")
    speed.set_ylim(place - 0.2, -0.8)  # the first size on top; the other panel shares the axis
    for axis in (speed, memory):
        axis.margins(x=0.28)
        axis.grid(False, axis="y")


def _base(case: dict) -> str:
    """The first candidate, which the others are compared with."""
    return next(iter(case["checks"]))


def _shade(case: dict, row: dict) -> str:
    number = list(case["checks"]).index(row["way"])
    if row["ours"] and number > 0:
        return OURS
    return BAR_COLOURS[number % len(BAR_COLOURS)]


def _write_size(axis: Axes, size: str, place: int) -> None:
    axis.annotate(
        size,
        (0, place),
        (2, -1),
        textcoords="offset points",
        va="center",
        fontsize=SMALL,
        color="#455a64",
        style="italic",
    )


def _draw_speed(axis: Axes, place: int, row: dict, *, ratio: dict, shade: str) -> None:
    """A bar for the median, a line from the smallest to the largest."""
    axis.barh(place, ratio["median"], BAR, color=shade)
    axis.plot((ratio["min"], ratio["max"]), (place, place), color="#222222", linewidth=0.8)
    _write_beside(axis, f"{ratio['median']:.2f} x, {short(row['median'])}", ratio["max"], place)


def _draw_memory(axis: Axes, place: int, megabytes: float, *, shade: str) -> None:
    axis.barh(place, megabytes, BAR, color=shade)
    _write_beside(axis, f"{megabytes:,.1f} MB", megabytes, place)


def _write_beside(axis: Axes, words: str, x: float, place: int) -> None:
    axis.annotate(
        words, (x, place), (4, 0), textcoords="offset points", va="center", fontsize=SMALL
    )
