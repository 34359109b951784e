"""The measured step as a picture: time by part, time by step, largest operators."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.pages.style import FAINT, FUSED, PLAIN, WIDTH, colour

ROWS = 12  # operators drawn
SMALL = 0.001  # parts below this share of the step are left out
WAIT = colour("hr")


def picture(found: dict) -> Figure:
    """Left: parts of the traced step. Right: every timed step. Below: operators. ``found`` as the
    command writes it."""
    figure = Figure(figsize=(WIDTH, 7.0), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    parts, steps = top.subplots(1, 2, width_ratios=(10, 9))
    _parts(parts, found["traced_step"])
    _steps(steps, found)
    _operators(bottom.subplots(), found)
    hardware, training = found["hardware"], found["training"]
    figure.suptitle(
        f"{found['configuration'].split()[0]}, {place(hardware)}, {hardware['type']}: "
        f"{short(found['step_seconds']['median'])} a step, {found['samples_per_second']:.3g} samples/s, MFU "
        f"{100 * found['flops']['mfu']:.1f} %, {training['applied']} of {training['steps']} steps applied",
        fontsize=10.5,
    )
    return figure


def place(hardware: dict) -> str:
    """How many ranks on what."""
    return f"{hardware['ranks']} rank{'s' * (hardware['ranks'] > 1)} on {hardware['device']}"


def short(seconds: float) -> str:
    """A time in the unit that suits it, three digits."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _parts(axis: Axes, traced: dict) -> None:
    """Bars from top to bottom in the order of the step, and communication, which lies inside them."""
    whole, exchange = traced["seconds"], traced["communication"]["seconds"]
    rows = {name: seconds for name, seconds in traced["parts"].items() if seconds >= SMALL * whole}
    for place, seconds in enumerate([*rows.values(), exchange]):
        axis.barh(place, seconds, 0.72, color=PLAIN if place < len(rows) else colour("sar"))
        axis.annotate(
            f"{short(seconds)}, {100 * seconds / whole:.1f} %",
            (seconds, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(range(len(rows) + 1), [*rows, "of these, communication"])
    axis.set(
        xlabel="seconds",
        title=f"Parts of one step with the profiler on, {short(whole)}, mean over ranks",
    )
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.grid(False, axis="y")


def _steps(axis: Axes, found: dict) -> None:
    """A bar a timed step, its wait for data at the foot."""
    step, waits = found["step_seconds"], found["data_wait"]["all"]
    numbers = range(found["counts"]["warmup"], found["counts"]["warmup"] + len(waits))
    axis.bar(numbers, step["all"], 0.8, color=FAINT, label="step")
    axis.bar(
        numbers,
        waits,
        0.8,
        color=WAIT,
        label=f"waiting for data, {100 * found['data_wait']['share']:.1f} %",
    )
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


def _operators(axis: Axes, found: dict) -> None:
    """The largest by self time."""
    rows = found["operators"][:ROWS]
    cuda = found["hardware"]["kind"] == "cuda"
    for place, row in enumerate(rows):
        axis.barh(place, row["seconds"], 0.72, color=FUSED if cuda else colour("ms"))
        axis.annotate(
            f"{100 * row['share']:.1f} %, {row['calls']:,} calls",
            (row["seconds"], place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(
        range(len(rows)),
        [row["name"] if len(row["name"]) <= 60 else row["name"][:57] + "..." for row in rows],
    )
    what = "kernels by device time" if cuda else "operators by their own CPU time"
    axis.set(
        xlabel="seconds", title=f"Largest {what}, rank 0, share of the step with the profiler on"
    )
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.grid(False, axis="y")
