"""Real training steps, measured: time, data, parts, communication, memory, FLOP/s, operators.
Nothing is written but a trace on request."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from data.stream.sample import Batch
from engine.config.load import Config
from engine.config.snapshot import environment
from engine.cost.count import StepFlops, step_flops
from engine.distributed import zero
from engine.distributed.collectives import collect, together
from engine.errors import ConfigError
from engine.profile.ceiling import SIZES, matmul_rate
from engine.profile.trace import STEP, StepTrace, read_trace
from engine.training.assemble import Run
from engine.training.loss_terms import TOTAL
from engine.training.step import StepReport, part
from engine.training.trainer import open_run, prepare
from models.moe.names import expert_parameters

TRACED = 2  # steps with the profiler on: the first pays for its start, the second is read
OPERATORS = 40  # rows kept of the table


@dataclass(frozen=True)
class RankFigures:
    """What one rank measured."""

    seconds: list[float]  # of each timed step
    waits: list[float]  # of these, until every rank had its batch
    memory: dict[str, int]  # peaks of this process, bytes
    matmul: float  # FLOP/s of a large matrix product, all ranks at once
    trace: StepTrace


def profile_step(
    config: Config, device: torch.device, warmup: int, steps: int, folder: Path | None = None
) -> dict:
    """Train ``warmup`` + ``steps`` + TRACED steps of a new run and report on them.

    Every rank must call it and gets the same, but for its own ``operators``.

    Args:
        config: of ``engine.config.load.load``, checked against the world size.
        device: this rank's, of ``zero.init_distributed``.
        warmup: first steps, not counted.
        steps: timed ones, without the profiler.
        folder: gets each rank's Chrome trace of the last step.

    Raises:
        RankError: one line, the same on all ranks, for what is wrong with settings or data.
    """
    total = warmup + steps + TRACED
    flops = together(lambda: _check(config, warmup, steps, total))
    prepare(config.settings)
    run = open_run(_aside(config), device)
    batches = iter(run.batches(total))
    for number in range(warmup):
        _say(run, number, total, "warm-up", one_step(run, batches)[0])
    timed = []
    for number in range(warmup, warmup + steps):
        timed.append(one_step(run, batches))
        _say(run, number, total, "timed", timed[-1][0])
    memory = peak_memory(device)
    size, dtype = SIZES[device.type], zero.compute_type(run.step.engine)
    matmul = matmul_rate(
        device, dtype, size
    )  # all ranks come from the same exchange: they multiply at the same time
    trace, operators = _traced(run, batches, folder)
    seconds, waits, reports = zip(*timed)
    ranks = collect(lambda: RankFigures(list(seconds), list(waits), memory, matmul, trace))
    batch = config.batch_size
    return {
        "hardware": hardware(device, len(ranks), dtype),
        "environment": _environment(),
        "counts": {
            "warmup": warmup,
            "timed": steps,
            "traced": TRACED,
            "batch": batch,
            "parameters": _parameters(run),
        },
        "training": training(reports),
        **figures(ranks, batch, flops, size),
        "operators": operators,
    }


def _check(config: Config, warmup: int, steps: int, total: int) -> StepFlops:
    """The FLOPs of a sample; ConfigError if the steps cannot be made."""
    if warmup < 0 or steps < 1:
        raise ConfigError(
            f"expected --warmup of at least 0 and --steps of at least 1, found {warmup} and {steps}"
        )
    planned = config.settings.schedule.steps
    if total > planned:
        raise ConfigError(
            f"skysense.schedule.steps: expected at least {total} ({warmup} of warm-up, {steps} timed, "
            f"{TRACED} traced), found {planned}; add --set skysense.schedule.steps={total}"
        )
    return step_flops(config.settings)


def _aside(config: Config) -> Config:
    """The configuration with a run folder that holds nothing: an earlier run's checkpoints are no
    reason to refuse."""
    return replace(config, settings=replace(config.settings, run_dir=os.devnull))


def one_step(run: Run, batches: Iterator[Batch]) -> tuple[float, float, StepReport]:
    """One step as the trainer makes it: its seconds, those until every rank had its batch, and the
    step's report."""
    began = time.perf_counter()
    with record_function(STEP):
        with part("data"):
            batch = together(
                lambda: next(batches)
            )  # a rank without one must not leave the others waiting
            waited = time.perf_counter() - began
        report = run.step(batch)
        synchronise(run.step.device)
    return time.perf_counter() - began, waited, report


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _traced(
    run: Run, batches: Iterator[Batch], folder: Path | None
) -> tuple[StepTrace, list[dict]]:
    """This rank's trace of the last step, and its operators."""
    cuda = run.step.device.type == "cuda"
    for number in range(TRACED):
        with profile(
            activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda, acc_events=True
        ) as profiler:
            seconds = one_step(run, batches)[0]
        _say(run, number, TRACED, "with the profiler", seconds)

    def keep() -> StepTrace:
        with TemporaryDirectory() if folder is None else nullcontext(folder) as place:
            path = Path(place) / f"step-rank-{run.rank:05d}.json"
            profiler.export_chrome_trace(str(path))
            return read_trace(path)

    trace = together(keep)
    return trace, operators(profiler.key_averages(), trace.step, cuda)


def operators(averages: Sequence, step: float, cuda: bool) -> list[dict]:
    """The largest by self time, of ``key_averages``: kernels of a GPU, otherwise operators of the
    CPU.

    ``seconds`` of one step, ``share`` of its ``step`` seconds.
    """
    device, field = (
        (DeviceType.CUDA, "self_device_time_total")
        if cuda
        else (DeviceType.CPU, "self_cpu_time_total")
    )
    rows = [
        (getattr(row, field) / 1e6, row.count, row.key)
        for row in averages
        if row.device_type == device and not row.is_user_annotation
    ]
    return [
        {"name": name, "calls": calls, "seconds": seconds, "share": seconds / step}
        for seconds, calls, name in sorted(rows, reverse=True)[:OPERATORS]
    ]


def training(reports: Sequence[StepReport]) -> dict:
    """Whether the timed steps trained: losses are over the global batch, None if not finite."""
    terms = [
        {name: value if isfinite(value) else None for name, value in report.terms.items()}
        for report in reports
    ]
    losses = [values[TOTAL] for values in terms]
    return {
        "steps": len(reports),
        "applied": sum(report.applied for report in reports),
        "finite": all(None not in values.values() for values in terms),
        "losses": losses,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "last_terms": terms[-1],
    }


def figures(ranks: Sequence[RankFigures], batch: int, flops: StepFlops, size: int) -> dict:
    """All ranks together. A step lasts as long as on its slowest rank; speed is of the median step.

    Args:
        ranks: of every rank, in order.
        batch: samples of a step, all ranks together.
        flops: of one sample.
        size: side of the matrix product that ``RankFigures.matmul`` is of.
    """
    seconds = [max(step) for step in zip(*(rank.seconds for rank in ranks))]
    waits = [max(step) for step in zip(*(rank.waits for rank in ranks))]
    middle = median(seconds)
    traces = [rank.trace for rank in ranks]
    step, exchange = (
        mean(trace.step for trace in traces),
        mean(trace.communication for trace in traces),
    )
    device = traces[0].busy is not None
    reached, ceiling = batch * flops.model / middle, sum(rank.matmul for rank in ranks)
    names = dict.fromkeys(name for trace in traces for name in trace.parts)
    return {
        "step_seconds": {
            "median": middle,
            "min": min(seconds),
            "max": max(seconds),
            "all": seconds,
        },
        "samples_per_second": batch / middle,
        "data_wait": {"seconds": mean(waits), "share": sum(waits) / sum(seconds), "all": waits},
        "memory": {name: max(rank.memory[name] for rank in ranks) for name in ranks[0].memory},
        "flops": {
            "sample_model": flops.model,
            "sample_hardware": flops.hardware,
            "step_model": batch * flops.model,
            "per_second": reached,
            "mfu": reached / ceiling,
            "matmul": {
                "side": size,
                "per_second": ceiling,
                "ranks": [rank.matmul for rank in ranks],
            },
        },
        "traced_step": {
            "seconds": step,
            "parts": {name: mean(trace.parts.get(name, 0.0) for trace in traces) for name in names},
            "communication": {
                "seconds": exchange,
                "share": exchange / step,
                "exposed": mean(trace.exposed for trace in traces) if device else None,
                "ranks": [trace.communication for trace in traces],
            },
            "busy_share": mean(trace.busy / trace.step for trace in traces) if device else None,
        },
    }


def hardware(device: torch.device, ranks: int, dtype: torch.dtype) -> dict:
    """What the step ran on."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else processor(Path("/proc/cpuinfo").read_text())
    )
    return {
        "device": name,
        "kind": device.type,
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "type": str(dtype).removeprefix("torch."),
    }


def processor(cpuinfo: str) -> str:
    """The processor's name in the text of /proc/cpuinfo; not every architecture gives one."""
    names = [
        line.partition(":")[2].strip()
        for line in cpuinfo.splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else "unnamed CPU"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peaks of this process so far, bytes: resident set, and on a GPU what torch allocated and
    reserved."""
    status = Path(
        "/proc/self/status"
    ).read_text()  # not getrusage: there a process starts with its parent's peak
    found = {"resident": 1024 * int(status.partition("VmHWM:")[2].split()[0])}
    if device.type == "cuda":
        found |= {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    return found


def _environment() -> dict:
    """Command, revision and versions; not which machine."""
    return {name: value for name, value in environment().items() if name != "host"}


def _parameters(run: Run) -> int:
    """Of the whole student: a rank holds only some of the experts."""
    student = run.step.student
    mine = sum(parameter.numel() for parameter in student.parameters())
    experts = sum(parameter.numel() for _, parameter in expert_parameters(student))
    return mine + (zero.ep_size(run.step.engine) - 1) * experts


def _say(run: Run, number: int, total: int, kind: str, seconds: float) -> None:
    """A progress line."""
    if run.rank == 0:
        print(f"step {number + 1}/{total}  {kind}  {seconds:.2f} s", flush=True)
