"""A plan in words."""

from engine.planning.advice import best
from engine.planning.plan import PAPER_HOURS, SPARE, Plan

GIB = 2**30
MEGABYTE = 1e6
PERCENT = 100


def lines_of(plan: Plan, *, price: float | None) -> list[str]:
    """The plan's tables.

    Args:
        plan: Of one setting.
        price: Of an hour of one GPU; None leaves the cost out.
    """
    samples = plan.batch_size // plan.world_size
    lines = [
        f"{plan.world_size} x {plan.card.name}, {samples} samples a rank, recompute "
        f"{plan.recompute}, ep_size {plan.ep_size}",
        "",
        *_memory(plan),
        "",
        *_communication(plan),
        "",
        *_time(plan),
    ]
    if price is not None:
        lines.append(f"  cost {plan.gpu_hours * price:,.0f} at {price:g} a GPU-hour")
    return lines


def _memory(plan: Plan) -> list[str]:
    """Items at the fullest moment, and the moments of the step."""
    memory = plan.memory
    verdict = "fits" if plan.fits else "does not fit"
    lines = [
        f"Memory of a rank: {memory.reserved / GIB:.1f} GiB reserved of "
        f"{plan.card.memory / GIB:.1f}: {verdict} with {SPARE * PERCENT:.0f} % to spare",
        f"  at the fullest moment, {memory.fullest.part}:",
    ]
    for item, size in sorted(memory.items().items(), key=lambda entry: -entry[1]):
        lines.append(f"  {item:36} {size / GIB:8.2f} GiB")
    lines.append(f"  {'moment':36} {'in use':>8}     {'reserved':>8}")
    for moment in memory.moments:
        lines.append(
            f"  {moment.part:36} {moment.allocated / GIB:8.2f} GiB {moment.reserved / GIB:8.2f} GiB"
        )
    return lines


def _communication(plan: Plan) -> list[str]:
    """Exchanges by part, collective and link."""
    if not plan.traffic:
        return ["Communication: none, there is one rank"]
    lines = ["Communication of a rank in a step"]
    lines.append(f"  {'part':20} {'collective':20} {'link':14} ranks")
    for exchange in plan.traffic:
        lines.append(
            f"  {exchange.part:20} {exchange.collective.strip('_'):20} {exchange.link:14} "
            f"{exchange.ranks:5} {exchange.calls:5} calls, tensors {exchange.size / MEGABYTE:9.1f} "
            f"MB, sent {exchange.sent / MEGABYTE:9.1f} MB"
        )
    return lines


def _time(plan: Plan) -> list[str]:
    """Seconds by part, and the whole run."""
    lines = ["Time of a step by roofline, in milliseconds"]
    lines.append(f"  {'part':20} {'products':>9} {'memory':>9} {'host':>9} {'waiting':>9}")
    for name, part in plan.parts.items():
        shown = (part.products, part.memory, part.host, part.exchange - part.hidden)
        numbers = " ".join(f"{1000 * seconds:9.1f}" for seconds in shown)
        lines.append(f"  {name:20} {numbers}")
    lines += [
        f"  step {plan.step_time:.3f} s, {plan.samples_per_second:.1f} samples/s",
        f"  {plan.steps:,} steps: {plan.days:.1f} days, {plan.gpu_hours:,.0f} GPU-hours "
        f"(the paper's run: {PAPER_HOURS:,} H20 hours)",
    ]
    return lines


def advice_lines(plans: list[Plan]) -> list[str]:
    """The table of what was tried, and the advice."""
    lines = ["Tried, the fastest first", f"  {'recompute':12} reserved   step      fits"]
    for tried in plans:
        verdict = "yes" if tried.fits else "no"
        reserved = tried.memory.reserved / GIB
        lines.append(
            f"  {tried.recompute:12} {reserved:6.1f} GiB {tried.step_time:6.3f} s  {verdict}"
        )
    choice = best(plans)
    if choice is None:
        lines.append("Advice: none of them fits; use more ranks or a smaller batch")
    else:
        lines.append(f"Advice: skysense.recompute={choice.recompute}")
    return lines
