"""Measures real training steps: time, data, parts, communication, memory, FLOP/s, operators.

Nothing is written, except for a trace on request.
"""

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from data.stream.sample import Batch
from engine.config.load import Config
from engine.config.snapshot import environment
from engine.cost.count import StepFlops, step_flops
from engine.distributed import zero
from engine.distributed.collectives import collect, together
from engine.errors import ConfigError
from engine.profile.ceiling import SIZES, matmul_rate
from engine.profile.hardware import hardware, peak_memory
from engine.profile.summary import RankFigures, figures, operators, training
from engine.profile.trace import STEP, StepTrace, read_trace
from engine.training.assemble import Run
from engine.training.step import StepReport, part
from engine.training.trainer import agreed_dataset, open_run, prepare
from models.moe.layer import expert_parameters

TRACED = 2  # steps with the profiler on: the first pays for its start, the second is read


@dataclass(frozen=True)
class TimedStep:
    """One step of one rank."""

    seconds: float
    waited: float  # seconds until every rank had its batch
    report: StepReport


def profile_step(
    config: Config, device: torch.device, *, warmup: int, steps: int, folder: Path | None = None
) -> dict:
    """Train ``warmup`` + ``steps`` + TRACED steps of a new run and report on them.

    Every rank must call it. All get the same report, except for their own ``operators``.

    Args:
        config: of ``engine.config.load.load``, checked against the world size.
        device: of this rank, from ``zero.init_distributed``.
        warmup: first steps, not counted.
        steps: timed steps, without the profiler.
        folder: gets the Chrome trace of the last step, a file for each rank.

    Raises:
        RankError: settings or data are wrong; one line, the same on all ranks.
    """
    total = warmup + steps + TRACED
    flops = together(lambda: _check(config, warmup=warmup, steps=steps))
    prepare(config.settings)
    config = _without_run_folder(config)
    run = open_run(config, agreed_dataset(config, device), device)
    batches = iter(run.batches(total))
    for number in range(warmup):
        step = one_step(run, batches)
        _print_step(run, f"step {number + 1}/{total}  warm-up", step)
    seconds = []
    waits = []
    reports = []
    for number in range(warmup, warmup + steps):
        step = one_step(run, batches)
        _print_step(run, f"step {number + 1}/{total}  timed", step)
        seconds.append(step.seconds)
        waits.append(step.waited)
        reports.append(step.report)
    memory = peak_memory(device)
    dtype = zero.compute_type(run.step.engine)
    side = SIZES[device.type]
    # All ranks come from the same exchange, so they multiply at the same time.
    matmul = matmul_rate(device, dtype, side)
    trace, table = _trace(run, batches, folder)
    own = RankFigures(seconds, waits, memory=memory, matmul=matmul, trace=trace)
    ranks = collect(lambda: own)
    return {
        "hardware": hardware(device, len(ranks), dtype),
        "environment": _environment(),
        "counts": {
            "warmup": warmup,
            "timed": steps,
            "traced": TRACED,
            "batch": config.batch_size,
            "parameters": _parameters(run),
        },
        "training": training(reports),
        **figures(ranks, batch=config.batch_size, flops=flops, matmul_side=side),
        "operators": table,
    }


def _check(config: Config, *, warmup: int, steps: int) -> StepFlops:
    """The FLOPs of a sample. Raises ConfigError if the configuration has too few steps."""
    if warmup < 0 or steps < 1:
        raise ConfigError(
            f"expected --warmup of at least 0 and --steps of at least 1, found {warmup} and {steps}"
        )
    total = warmup + steps + TRACED
    planned = config.settings.schedule.steps
    if total > planned:
        raise ConfigError(
            f"skysense.schedule.steps: expected at least {total} ({warmup} of warm-up, {steps} "
            f"timed, {TRACED} traced), found {planned}; add --set skysense.schedule.steps={total}"
        )
    return step_flops(config.settings)


def _without_run_folder(config: Config) -> Config:
    """The configuration with an empty run folder: checkpoints of an earlier run do not matter."""
    return replace(config, settings=replace(config.settings, run_dir=os.devnull))


def one_step(run: Run, batches: Iterator[Batch]) -> TimedStep:
    """Make one step as the trainer does, and time it."""
    began = time.perf_counter()
    with record_function(STEP):
        with part("data"):
            # A rank without a batch must not leave the others waiting.
            batch = together(lambda: next(batches))
            waited = time.perf_counter() - began
        report = run.step(batch)
        synchronise(run.step.device)
    return TimedStep(time.perf_counter() - began, waited, report)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _trace(run: Run, batches: Iterator[Batch], folder: Path | None) -> tuple[StepTrace, list[dict]]:
    """Make the traced steps; return this rank's trace of the last one, and its operators."""
    cuda = run.step.device.type == "cuda"
    activities = [ProfilerActivity.CPU]
    if cuda:
        activities.append(ProfilerActivity.CUDA)
    # The first step warms the profiler up; acc_events only spares a warning about later cycles.
    stages = schedule(wait=0, warmup=TRACED - 1, active=1, repeat=1)
    with profile(activities=activities, schedule=stages, acc_events=True) as profiler:
        for number in range(TRACED):
            step = one_step(run, batches)
            profiler.step()
            _print_step(run, f"step {number + 1}/{TRACED}  with the profiler", step)

    def export() -> StepTrace:
        with TemporaryDirectory() if folder is None else nullcontext(folder) as place:
            path = Path(place) / f"step-rank-{run.rank:05d}.json"
            profiler.export_chrome_trace(str(path))
            return read_trace(path)

    trace = together(export)
    return trace, operators(profiler.key_averages(), trace.step, cuda=cuda)


def _environment() -> dict:
    """Command, revision and versions, but not the name of the machine."""
    return {name: value for name, value in environment().items() if name != "host"}


def _parameters(run: Run) -> int:
    """Parameters of the whole student. A rank holds only some of the experts."""
    student = run.step.student
    own = sum(parameter.numel() for parameter in student.parameters())
    experts = sum(parameter.numel() for _, parameter in expert_parameters(student))
    return own + (zero.ep_size(run.step.engine) - 1) * experts


def _print_step(run: Run, title: str, step: TimedStep) -> None:
    """Print a line of progress on the first rank."""
    if run.rank == 0:
        print(f"{title}  {step.seconds:.2f} s", flush=True)
