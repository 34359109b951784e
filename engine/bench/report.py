"""What a comparison found, for people: one table a case, and a picture of all."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.pages.style import FAINT, FUSED, PLAIN, WIDTH, colour
from engine.bench.case import BOTH, FORWARD
from engine.profile.figure import short

WAYS = (
    FAINT,
    colour("sar"),
    colour("ms"),
    FUSED,
    PLAIN,
)  # colours, by place in the case
OURS = colour("hr")


def table(found: dict) -> str:
    """A case as ``compare`` returns it."""
    base = next(iter(found["checks"]))
    lines = [
        f"\n{found['case']}: {found['size']}",
        f"  {'':26}{'':20}{'median (smallest to largest)':>34}{'times ' + base:>26}{'of copy':>9}"
        f"{'of products':>13}{'extra MB':>10}",
    ]
    for name, check in found["checks"].items():
        rows = [row for row in found["rows"] if row["way"] == name]
        lines += [_line(name if number == 0 else "", row, base) for number, row in enumerate(rows)]
        if not rows:
            lines.append(f"  {name:26}{_verdict(check, found['tolerance'])}")
    lines += [f"  {name:26}not measured: {why}" for name, why in found["left_out"].items()]
    right = {name: check for name, check in found["checks"].items() if check["state"] == "right"}
    errors = ", ".join(f"{name} {max(check['errors']):.0e}" for name, check in right.items())
    size = max((check["result_bytes"] for check in right.values()), default=0)
    lines.append(
        f"  values and gradients, {size / 1e6:.1f} MB, are off by at most, {found['tolerance']:.0e} allowed: "
        f"{errors}"
    )
    for goal in found["goals"]:
        lines.append(f"  goal, {goal['goal']}: {_reached(goal)}")
    return "\n".join(lines)


def _line(name: str, row: dict, base: str) -> str:
    time = f"{short(row['median'])} ({short(row['min'])} to {short(row['max'])})"
    ratio = row["faster"].get(base)
    faster = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else ""
    extra = "" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 1e6:.1f}"
    return (
        f"  {name:26}{row['part']:20}{time:>34}{faster:>26}{_percent(row['copy_share']):>9}"
        f"{_percent(row['product_share']):>13}{extra:>10}"
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _verdict(check: dict, tolerance: float) -> str:
    if check["state"] == "wrong":
        errors = ", ".join(
            "not finite" if error is None else f"{error:.1e}" for error in check["errors"]
        )
        return f"FAILED: values and gradients are off by {errors}; expected at most {tolerance:.0e}"
    return f"{'FAILED' if check['state'] == 'failed' else check['state']}: {check['reason']}"


def _reached(goal: dict) -> str:
    if goal["met"] is None:
        return "not measured"
    figure = f"{goal['found']:.2f} x" if goal["kind"] == "speed" else f"{100 * goal['found']:.1f} %"
    return f"{figure}, {'met' if goal['met'] else 'not met'}"


def picture(found: dict) -> Figure:
    """A row of panels a kind of case. Left: times faster than its first way. Right: extra memory.
    ``found`` as the command writes it."""
    kinds = list(dict.fromkeys(case["case"] for case in found["cases"]))
    groups = [[case for case in found["cases"] if case["case"] == kind] for kind in kinds]
    heights = [1 + sum(len(_rows(case)) + 1 for case in group) for group in groups]
    figure = Figure(figsize=(WIDTH, 0.8 + 0.2 * sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(kinds),
        2,
        squeeze=False,
        height_ratios=heights,
        sharey="row",
        gridspec_kw={"width_ratios": (10, 8)},
    )
    for group, (speed, memory) in zip(groups, panels):
        _panel(group, speed, memory)
    figure.suptitle(
        f"{found['device']}, {found['threads']} CPU thread{'s' * (found['threads'] > 1)}, "
        f"{found['rounds']} rounds; copies {found['rates']['copy'] / 1e9:.3g} GB/s",
        fontsize=10.5,
    )
    return figure


def _rows(case: dict) -> list[dict]:
    """The rows drawn: all of a training step where there is a backward pass."""
    part = BOTH if any(row["part"] == BOTH for row in case["rows"]) else FORWARD
    return [row for row in case["rows"] if row["part"] == part]


def _panel(group: list[dict], speed: Axes, memory: Axes) -> None:
    """One kind of case, its sizes from top to bottom, a bar a way."""
    place, ticks, names = 0, [], []
    for case in group:
        base = next(iter(case["checks"]))
        speed.annotate(
            case["size"],
            (0, place),
            (2, -1),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color="#455a64",
            style="italic",
        )
        place += 1
        for row in _rows(case):
            number = list(case["checks"]).index(row["way"])
            colour = OURS if row["ours"] and number else WAYS[number % len(WAYS)]
            ratio = row["faster"].get(base)
            if ratio:
                speed.barh(place, ratio["median"], 0.8, color=colour)
                speed.plot(
                    (ratio["min"], ratio["max"]), (place, place), color="#222222", linewidth=0.8
                )
                speed.annotate(
                    f"{ratio['median']:.2f} x, {short(row['median'])}",
                    (ratio["max"], place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7.5,
                )
            megabytes = row["extra_bytes"] / 1e6
            memory.barh(place, megabytes, 0.8, color=colour)
            memory.annotate(
                f"{megabytes:,.1f} MB",
                (megabytes, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
            ticks.append(place)
            names.append(row["way"])
            place += 1
    part = _rows(group[0])[0]["part"] if _rows(group[0]) else ""
    speed.set_yticks(ticks, names, fontsize=7.5)
    speed.set_title(
        f"{group[0]['case']}, {part}: times faster than {next(iter(group[0]['checks']))}"
    )
    memory.set_title("extra memory, MB; results included")
    speed.set_ylim(place - 0.2, -0.8)  # the first size on top; the other panel shares the axis
    for axis in (speed, memory):
        axis.margins(x=0.28)
        axis.grid(False, axis="y")
