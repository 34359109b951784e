"""A plan in words."""

from engine.planning.advice import Advice
from engine.planning.plan import PAPER_HOURS, SPARE, Plan
from engine.planning.scaling import Scaling

GIB = 2**30
MEGABYTE = 1e6
PERCENT = 100


def lines_of(plan: Plan, *, price: float | None) -> list[str]:
    """The plan's tables.

    Args:
        plan: Of one setting.
        price: Of an hour of one GPU; None leaves the cost out.
    """
    lines = [
        f"{plan.world_size} x {plan.card.name}, {plan.samples} samples a rank, recompute "
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
    ranks = min(plan.world_size, plan.card.node)
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
    lines.append(
        f"  {'on the host, during a save':36} {memory.saved / GIB:8.2f} GiB, "
        f"{memory.saved * ranks / GIB:.1f} GiB a node"
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


def advice_lines(advice: Advice, given: Plan) -> list[str]:
    """The tables of what was tried, and the advice.

    Args:
        advice: What was planned.
        given: The plan of the setting as the user has it.
    """
    lines = ["The same training in other ways, the fastest first", *_table(advice.same)]
    lines += ["", "Other trainings, planned with the best of these", *_table(advice.others), ""]
    chosen = advice.best
    if chosen is None:
        lines.append("Advice: none of the same training fits; use more ranks or a smaller batch")
    elif given.fits and chosen.step_time >= given.step_time:
        lines.append("Advice: keep the setting; nothing that fits is faster")
    else:
        lines.append(
            f"Advice: SKYSENSE_KERNELS={chosen.setting.kernels} "
            f"--set skysense.recompute={chosen.recompute} --set skysense.ep_size={chosen.ep_size}: "
            f"{chosen.samples_per_second:.1f} samples/s, {given.samples_per_second:.1f} as given"
        )
    return lines


def scaling_lines(scaling: Scaling) -> list[str]:
    """A row for each number of ranks."""
    heading = (
        f"  {'ranks':>5} {'samples':>7} {'reserved':>10} {'samples/s':>9} {'days':>8} "
        f"{'GPU-hours':>10}  fits"
    )
    lines = ["On other numbers of ranks, the same samples a rank", heading]
    lines += map(_rank_row, scaling.same_share)
    lines += ["", "On other numbers of ranks, the same batch", heading]
    lines += map(_rank_row, scaling.same_batch)
    return lines


def _rank_row(plan: Plan) -> str:
    return (
        f"  {plan.world_size:5} {plan.samples:7} {plan.memory.reserved / GIB:6.1f} GiB "
        f"{plan.samples_per_second:9.1f} {plan.days:8.1f} {plan.gpu_hours:10,.0f}  "
        f"{_yes(plan.fits)}"
    )


def _yes(fits: bool) -> str:
    return "yes" if fits else "no"


def _table(plans: list[Plan]) -> list[str]:
    lines = [
        f"  {'recompute':10} {'ep_size':>7} {'kernels':>7} {'samples':>7} {'cells':>5} "
        f"{'reserved':>10} {'step':>9} {'samples/s':>9}  fits"
    ]
    for plan in plans:
        lines.append(
            f"  {plan.recompute:10} {plan.ep_size:7} {plan.setting.kernels:>7} {plan.samples:7} "
            f"{plan.cells_per_token or '-':>5} {plan.memory.reserved / GIB:6.1f} GiB "
            f"{plan.step_time:7.3f} s {plan.samples_per_second:9.1f}  {_yes(plan.fits)}"
        )
    return lines
