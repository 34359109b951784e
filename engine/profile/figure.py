"""The measured step as a picture: time by part, time by step, largest operators."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.pages.style import FAINT, FUSED, PLAIN, WIDTH, colour

ROWS = 12  # operators drawn
SMALL = 0.001  # parts below this share of the step are left out
NAME_LENGTH = 60  # characters drawn of an operator's name
WAIT = colour("hr")


def picture(record: dict) -> Figure:
    """Draw a report.

    Left: parts of the traced step. Right: all timed steps. Below: operators.

    Args:
        record: the report as the command writes it.
    """
    figure = Figure(figsize=(WIDTH, 7.0), layout="constrained")
    panels = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.05))
    parts, steps = panels[0, 0].subplots(1, 2, width_ratios=(10, 9))
    _parts(parts, record["traced_step"])
    _steps(steps, record)
    _operators(panels[1, 0].subplots(), record)
    hardware = record["hardware"]
    training = record["training"]
    figure.suptitle(
        f"{record['configuration'].split()[0]}, {place(hardware)}, {hardware['type']}: "
        f"{short(record['step_seconds']['median'])} a step, "
        f"{record['samples_per_second']:.3g} samples/s, MFU {100 * record['flops']['mfu']:.1f} %, "
        f"{training['applied']} of {training['steps']} steps applied",
        fontsize=10.5,
    )
    return figure


def place(hardware: dict) -> str:
    """How many ranks on what."""
    if hardware["ranks"] == 1:
        return f"1 rank on {hardware['device']}"
    return f"{hardware['ranks']} ranks on {hardware['device']}"


def short(seconds: float) -> str:
    """A time in the unit that suits it, with three digits."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms"


def _parts(axis: Axes, traced: dict) -> None:
    """Bars from top to bottom in the order of the step; communication, inside them, comes last."""
    whole = traced["seconds"]
    names: list[str] = []
    for name, seconds in traced["parts"].items():
        if seconds >= SMALL * whole:
            _bar(axis, len(names), seconds, label=_share(seconds, whole), shade=PLAIN)
            names.append(name)
    exchange = traced["communication"]["seconds"]
    _bar(axis, len(names), exchange, label=_share(exchange, whole), shade=colour("sar"))
    names.append("of these, communication")
    axis.set_yticks(range(len(names)), names)
    axis.set(
        xlabel="seconds",
        title=f"Parts of one step with the profiler on, {short(whole)}, mean over ranks",
    )
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.grid(False, axis="y")


def _share(seconds: float, whole: float) -> str:
    return f"{short(seconds)}, {100 * seconds / whole:.1f} %"


def _bar(axis: Axes, row: int, seconds: float, *, label: str, shade: str) -> None:
    """A bar with its label to the right."""
    axis.barh(row, seconds, 0.72, color=shade)
    axis.annotate(
        label, (seconds, row), (4, 0), textcoords="offset points", va="center", fontsize=8
    )


def _steps(axis: Axes, record: dict) -> None:
    """A bar for each timed step, with its wait for data at the foot."""
    step = record["step_seconds"]
    waits = record["data_wait"]["all"]
    first = record["counts"]["warmup"]
    numbers = range(first, first + len(waits))
    wait_label = f"waiting for data, {100 * record['data_wait']['share']:.1f} %"
    axis.bar(numbers, step["all"], 0.8, color=FAINT, label="step")
    axis.bar(numbers, waits, 0.8, color=WAIT, label=wait_label)
    axis.axhline(
        step["median"],
        color=PLAIN,
        linewidth=1,
        linestyle=(0, (4, 3)),
        label=f"median {short(step['median'])}",
    )
    axis.set(
        xlabel="step", ylabel="seconds", title="Timed steps, without the profiler, slowest rank"
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(0, 1.3 * step["max"])
    axis.grid(False, axis="x")
    axis.legend(loc="upper right", ncols=3, fontsize=8)


def _operators(axis: Axes, record: dict) -> None:
    """The largest operators by self time."""
    what = "operators by their own CPU time"
    shade = colour("ms")
    if record["hardware"]["kind"] == "cuda":
        what = "kernels by device time"
        shade = FUSED
    names: list[str] = []
    for row in record["operators"][:ROWS]:
        label = f"{100 * row['share']:.1f} %, {row['calls']:,} calls"
        _bar(axis, len(names), row["seconds"], label=label, shade=shade)
        names.append(_shortened(row["name"]))
    axis.set_yticks(range(len(names)), names)
    axis.set(
        xlabel="seconds", title=f"Largest {what}, rank 0, share of the step with the profiler on"
    )
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(False, axis="y")


def _shortened(name: str) -> str:
    if len(name) <= NAME_LENGTH:
        return name
    return name[: NAME_LENGTH - 3] + "..."
