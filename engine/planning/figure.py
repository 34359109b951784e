"""A run on 1 to 1024 ranks as a picture: samples a second, days, and memory of a rank."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.pages.style import FAINT, WIDTH, colour
from engine.planning.plan import SPARE, Plan
from engine.planning.scaling import WORLD_SIZES, Scaling

GIB = 2**30


def picture(scaling: Scaling, planned: Plan) -> Figure:
    """Draw both series.

    Args:
        scaling: The plans.
        planned: The run as it is, marked in each panel.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    speed, days, memory = figure.subplots(1, 3)
    series = {
        f"{planned.samples} samples a rank": (scaling.same_share, colour("ms")),
        f"a batch of {planned.batch_size}": (scaling.same_batch, colour("hr")),
    }
    for label, (plans, shade) in series.items():
        _curve(speed, plans, lambda plan: plan.samples_per_second, label=label, shade=shade)
        _curve(days, plans, lambda plan: plan.days, label=label, shade=shade)
        _curve(memory, plans, lambda plan: plan.memory.reserved / GIB, label=label, shade=shade)
    speed.set(ylabel="samples/s", yscale="log")
    speed.legend()
    days.set(ylabel=f"days of {planned.steps:,} steps", yscale="log")
    memory.set(ylabel="GiB reserved by a rank")
    memory.set_ylim(bottom=0)
    memory.axhline((1 - SPARE) * planned.card.memory / GIB, color=FAINT)
    memory.annotate(
        f"{100 * (1 - SPARE):.0f} % of the card",
        (WORLD_SIZES[-1], (1 - SPARE) * planned.card.memory / GIB),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
    )
    for axis in (speed, days, memory):
        axis.set(xlabel="ranks", xscale="log")
        axis.set_xticks(WORLD_SIZES[::2], [str(size) for size in WORLD_SIZES[::2]])
        axis.minorticks_off()
    figure.suptitle(
        f"{planned.setting.path.name} on {planned.card.name}, recompute {planned.recompute}, by "
        "plan; hollow: does not fit",
        fontsize=10.5,
    )
    return figure


def _curve(
    axis: Axes, plans: Sequence[Plan], value: Callable[[Plan], float], *, label: str, shade: str
) -> None:
    """A line through all plans, with a full point where one fits."""
    ranks = [plan.world_size for plan in plans]
    values = [value(plan) for plan in plans]
    axis.plot(ranks, values, color=shade, label=label)
    for rank, number, plan in zip(ranks, values, plans, strict=True):
        face = shade if plan.fits else "none"
        axis.plot(rank, number, "o", color=shade, markerfacecolor=face)
