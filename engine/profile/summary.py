"""The figures of a measured step: all ranks together, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean, median

from torch.autograd import DeviceType

from engine.cost.count import StepFlops
from engine.profile.trace import StepTrace
from engine.training.loss_terms import TOTAL
from engine.training.step import StepReport

OPERATORS = 40  # rows kept of the table


@dataclass(frozen=True)
class RankFigures:
    """What one rank measured."""

    seconds: list[float]  # of each timed step
    waits: list[float]  # of these, until every rank had its batch
    memory: dict[str, int]  # peaks of this process, bytes
    matmul: float  # FLOP/s of a large matrix product, all ranks at once
    trace: StepTrace


def figures(
    ranks: Sequence[RankFigures], *, batch: int, flops: StepFlops, matmul_side: int
) -> dict:
    """All ranks together.

    A step lasts as long as on its slowest rank; speed is that of the median step.

    Args:
        ranks: of every rank, in order.
        batch: samples of a step, all ranks together.
        flops: of one sample.
        matmul_side: side of the matrix product that ``RankFigures.matmul`` is of.
    """
    all_seconds = []
    all_waits = []
    rates = []
    traces = []
    for rank in ranks:
        all_seconds.append(rank.seconds)
        all_waits.append(rank.waits)
        rates.append(rank.matmul)
        traces.append(rank.trace)
    seconds = _slowest(all_seconds)
    waits = _slowest(all_waits)
    median_seconds = median(seconds)
    reached = batch * flops.model / median_seconds
    return {
        "step_seconds": {
            "median": median_seconds,
            "min": min(seconds),
            "max": max(seconds),
            "all": seconds,
        },
        "samples_per_second": batch / median_seconds,
        "data_wait": {"seconds": mean(waits), "share": sum(waits) / sum(seconds), "all": waits},
        "memory": _peaks(ranks),
        "flops": {
            "sample_model": flops.model,
            "sample_hardware": flops.hardware,
            "step_model": batch * flops.model,
            "per_second": reached,
            "mfu": reached / sum(rates),
            "matmul": {"side": matmul_side, "per_second": sum(rates), "ranks": rates},
        },
        "traced_step": _traced_step(traces),
    }


def _slowest(ranks: Sequence[Sequence[float]]) -> list[float]:
    """The largest value of each step over ranks."""
    return [max(step) for step in zip(*ranks)]


def _peaks(ranks: Sequence[RankFigures]) -> dict[str, int]:
    """The largest peak of each kind of memory over ranks."""
    peaks: dict[str, int] = {}
    for rank in ranks:
        for name, size in rank.memory.items():
            peaks[name] = max(size, peaks.get(name, 0))
    return peaks


def _traced_step(traces: Sequence[StepTrace]) -> dict:
    """The step with the profiler on, as the mean over ranks."""
    steps = []
    communication = []
    exposed = []
    busy = []
    parts: dict[str, float] = {}
    for trace in traces:
        steps.append(trace.step)
        communication.append(trace.communication)
        if trace.exposed is not None:
            exposed.append(trace.exposed)
        if trace.busy is not None:
            busy.append(trace.busy / trace.step)
        for name in trace.parts:
            parts[name] = mean(other.parts.get(name, 0.0) for other in traces)
    step = mean(steps)
    return {
        "seconds": step,
        "parts": parts,
        "communication": {
            "seconds": mean(communication),
            "share": mean(communication) / step,
            "exposed": mean(exposed) if exposed else None,
            "ranks": communication,
        },
        "busy_share": mean(busy) if busy else None,
    }


def training(reports: Sequence[StepReport]) -> dict:
    """Whether the timed steps trained; losses are over the global batch, None if not finite."""
    applied = 0
    finite = True
    losses = []
    for report in reports:
        terms = _finite(report.terms)
        losses.append(terms[TOTAL])
        finite = finite and None not in terms.values()
        if report.applied:
            applied += 1
    return {
        "steps": len(reports),
        "applied": applied,
        "finite": finite,
        "losses": losses,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "last_terms": _finite(reports[-1].terms),
    }


def _finite(terms: dict[str, float]) -> dict[str, float | None]:
    """The same terms, None for those that are not finite."""
    return {name: value if isfinite(value) else None for name, value in terms.items()}


def operators(averages: Sequence, step: float, *, cuda: bool) -> list[dict]:
    """The largest operators by self time: kernels of a GPU, otherwise operators of the CPU.

    Args:
        averages: of ``torch.profiler.profile.key_averages`` for one step.
        step: seconds of this step.
        cuda: whether it ran on a GPU.

    Returns:
        Rows with ``name``, ``calls``, ``seconds`` and ``share`` of the step.
    """
    device = DeviceType.CPU
    field = "self_cpu_time_total"
    if cuda:
        device = DeviceType.CUDA
        field = "self_device_time_total"
    rows = []
    for row in averages:
        if row.device_type == device and not row.is_user_annotation:
            rows.append((getattr(row, field) / 1e6, row.count, row.key))
    rows.sort(reverse=True)
    table = []
    for seconds, calls, name in rows[:OPERATORS]:
        table.append({"name": name, "calls": calls, "seconds": seconds, "share": seconds / step})
    return table
