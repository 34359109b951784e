"""The loop: open everything, continue where the run stopped, step, log, save."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data.errors import InputError
from data.stream.batches import open_stream
from data.stream.mixture import Mixture
from data.stream.sample import Batch
from engine.checkpoint.load import latest, load
from engine.checkpoint.save import save
from engine.config.load import Config
from engine.config.settings import Settings
from engine.config.snapshot import snapshot
from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer, on_first_rank, together
from engine.distributed.teacher import EmaTeacher
from engine.errors import ConfigError
from engine.resilience.guard import Guard
from engine.resilience.preempt import Preempt, Request
from engine.training.build import (
    build_models,
    check_regions,
    describe,
    embed_classes,
    is_last_layer,
    is_no_decay,
    share_context,
    take_trained,
)
from engine.training.housekeeping import GarbageCollection
from engine.training.metrics import Metrics
from engine.training.objective import Objective
from engine.training.schedules import Schedules
from engine.training.step import Step, StepReport

EXIT_DONE = 0  # all steps made, or stopped by the stop file: nothing to requeue
EXIT_REQUEUE = 75  # EX_TEMPFAIL: saved after a signal, the same command with --resume continues
EXIT_INPUT = 2  # as for every wrong input
EXIT_GUARD = 3  # the guard ended the run
EXIT_CODES = {Request.NONE: None, Request.STOP_FILE: EXIT_DONE, Request.SIGNAL: EXIT_REQUEUE}


@dataclass
class Run:
    """The objects of a run on this rank."""

    config: Config
    run_dir: Path
    rank: int
    dataset: Mixture
    reducer: DistributedReducer
    step: Step
    start: int  # first step to make

    @property
    def settings(self) -> Settings:
        """The run's typed settings."""
        return self.config.settings


def train(
    config: Config, device: torch.device, resume: str | None = None, stop_at: int | None = None
) -> int:
    """Train and return the exit code: 0 done or stopped by hand, 2 for data that cannot be read
    (the state is saved), 3 if the guard ended the run, 75 if a signal asked for a requeue.

    Args: config: of ``engine.config.load.load``, checked against the world size. device: this
        rank's, of ``zero.init_distributed``. resume: None for a new run, "auto" for the newest
        whole checkpoint if there is one, or a checkpoint folder. stop_at: save and stop before this
        step, as a stop file would.

    Raises:
        RankError: one line, the same on all ranks, before anything is trained or written.
    """
    prepare(config.settings)
    rank = zero.ranks()[0]
    preempt = Preempt(
        config.settings.run_dir, rank
    )  # first: a signal during the start must not kill the job unsaved
    try:
        run = open_run(config, device, resume)
        on_first_rank(
            lambda: snapshot(config, run.run_dir, resume=resume is not None)
        )  # a refusal has changed nothing
        return _loop(run, preempt, stop_at)
    finally:
        preempt.close()


def prepare(settings: Settings) -> None:
    """Set what holds for the whole process: deterministic kernels, threads.

    Raises:
        ConfigError: the configuration needs a GPU and torch sees none.
    """
    if settings.needs_gpu and not torch.cuda.is_available():
        raise ConfigError(
            "skysense.needs_gpu: expected a GPU for this configuration, torch sees none; use "
            "ds_configs/demo_one_process.json on a CPU, or --set skysense.needs_gpu=false"
        )
    torch.use_deterministic_algorithms(True, warn_only=True)
    # deterministic mode also fills every new tensor; nothing here reads what it has not written,
    # and it costs a quarter of a step on a CPU
    torch.utils.deterministic.fill_uninitialized_memory = False
    if settings.threads:
        torch.set_num_threads(settings.threads)


def open_run(config: Config, device: torch.device, resume: str | None = None) -> Run:
    """Dataset, models, engine and teacher of a run, at the step where it goes on. Writes nothing;
    arguments and errors as in ``train``."""
    settings, run_dir = config.settings, Path(config.settings.run_dir)
    dataset, text, tower = together(lambda: _inputs(settings))
    found = _checkpoint_to_resume(run_dir, resume)
    rank = zero.ranks()[0]
    reducer = DistributedReducer()
    student, teacher = together(lambda: build_models(settings, reducer))
    taken = []
    if (
        settings.init.path is not None and found is None
    ):  # the teacher starts as a copy of the student
        taken = together(lambda: take_trained(settings, student, dataset.regions))
    if rank == 0:
        lines = [
            *describe(student),
            *taken,
            f"class embeddings: {tower}",
            f"data: {len(dataset)} samples of {dataset.path}, run folder {run_dir}",
        ]
        print("\n".join(lines), flush=True)

    optimizer = config.deepspeed["optimizer"]["params"]
    groups = zero.parameter_groups(
        student,
        weight_decay=optimizer["weight_decay"],
        is_no_decay=partial(is_no_decay, spec=settings.model),
        is_last_layer=is_last_layer,
    )
    engine = zero.initialize(student, config.deepspeed, groups)
    zero.join_expert_groups(teacher)
    teacher = teacher.to(device, zero.compute_type(engine))
    share_context(engine.module, teacher)
    ema = EmaTeacher(engine, teacher)
    objective = Objective(settings.loss, engine.module, teacher, text.to(device), reducer)
    step = Step(
        engine,
        ema,
        teacher,
        objective,
        Schedules(settings, optimizer),
        reducer,
        device,
        settings.seed,
    )
    run = Run(config, run_dir, rank, dataset, reducer, step, start=0)
    if found is not None:
        run.start = _restore(run, found)
    return run


def _inputs(settings: Settings) -> tuple[Mixture, Tensor, str]:
    """Dataset, class embeddings and what made them; everything a user can get wrong outside the
    configuration."""
    dataset = Mixture.open(settings.data)
    check_regions(settings, dataset)
    return dataset, *embed_classes(settings, dataset)


def _checkpoint_to_resume(run_dir: Path, resume: str | None) -> Path | None:
    """The checkpoint folder to continue from; None to start anew. Raises ConfigError."""
    newest = latest(run_dir)
    if resume is None and newest is not None:
        raise ConfigError(
            f"{run_dir}: holds checkpoints of an earlier run; continue it with --resume, "
            "or choose another --run_dir"
        )
    return newest if resume == "auto" else Path(resume) if resume else None


def _restore(run: Run, folder: Path) -> int:
    """Load a checkpoint and return the next step."""
    state = load(folder, run.step.engine, run.step.ema)
    together(lambda: _take(run, folder, state))
    if run.rank == 0:
        print(f"continuing from {folder} at step {state['step']}", flush=True)
    return state["step"]


def _take(run: Run, folder: Path, state: dict) -> None:
    """The engine's own part of a checkpoint. Raises ConfigError if it belongs to other data, seed
    or centring."""
    for name, here in (("fingerprint", run.dataset.fingerprint), ("seed", run.settings.seed)):
        if state[name] != here:
            raise ConfigError(
                f"{folder}: saved with {name} {state[name]}, this run has {here}; "
                "a run goes on with its own data and seed only"
            )
    run.step.objective.load_state(state["centres"])


def _loop(run: Run, preempt: Preempt, stop_at: int | None) -> int:
    """Steps until the end, a request to stop, a bad sample too many, or a guard that ends the run."""
    settings, step = run.settings, run.step
    steps, batch_size = settings.schedule.steps, run.config.deepspeed["train_batch_size"]
    stop = steps if stop_at is None else max(run.start, min(steps, stop_at))
    metrics = Metrics(run.run_dir, steps, run.start, run.rank, settings.log_every)
    guard = Guard(settings.guard, settings.model.head.prototypes)
    garbage = GarbageCollection(settings.collect_garbage_every)
    batches = iter(
        open_stream(
            run.dataset,
            settings.data,
            seed=settings.seed,
            batch_size=batch_size,
            steps=range(run.start, stop),
            rank=run.rank,
            world_size=run.reducer.world_size,
        )
    )
    code, done, saved = None, run.start, run.start
    try:
        while done < stop and code is None:
            began = time.perf_counter()
            batch = _next(batches, run, step.device)
            if batch is None:
                code = EXIT_INPUT
                break
            waited = time.perf_counter() - began
            report = step(batch)
            done = batch.step + 1
            metrics.log(
                batch.step, _record(report), batch_size, time.perf_counter() - began, waited
            )
            _record_trouble(run, batch, report)
            verdict = guard.check(report.terms["total"], report.entropies(), applied=report.applied)
            if run.rank == 0:
                for message in verdict.warnings:
                    print(f"warning: {message}", flush=True)
            if verdict.stop:
                code = EXIT_GUARD
            else:
                code = EXIT_CODES[preempt.vote(run.reducer, step.device)]
            if done % settings.checkpoint.every == 0:
                saved = _save(run, done)
            garbage.after(batch.step)
        if saved != done:
            _save(run, done)
        step.ema.wait()  # no exchange may be under way when the process groups go
    finally:
        metrics.close()
        garbage.close()
    return EXIT_DONE if code is None else code


def _next(batches: Iterator[Batch], run: Run, device: torch.device) -> Batch | None:
    """The next batch, or None on all ranks if one of them has none: it says why, and all can still
    save."""
    batch, problem = None, None
    try:
        batch = next(batches)
    except InputError as error:
        problem = error
    lost = run.reducer.max(torch.tensor(float(problem is not None), device=device))
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr, flush=True)
    return None if lost else batch


def _save(run: Run, done: int) -> int:
    """Publish a checkpoint after ``done`` steps."""
    settings, ema = run.settings, run.step.ema
    extra = {
        "seed": settings.seed,
        "fingerprint": run.dataset.fingerprint,
        "centres": run.step.objective.state(),
        "model": asdict(settings.model),
        "regions": run.dataset.regions.to_json(),
    }
    save(
        run.run_dir,
        done,
        engine=run.step.engine,
        teacher=ema,
        extra=extra,
        keep=settings.checkpoint.keep,
    )
    return done


def _record(report: StepReport) -> dict:
    """A step's line in the metrics file."""
    now = report.schedule
    record = {
        "loss": report.terms["total"],
        "applied": report.applied,
        "gradient_norm": report.gradient_norm,
        "lr": now.lr,
        "weight_decay": now.weight_decay,
        "momentum": now.momentum,
        "teacher_temperature": now.teacher_temperature,
    }
    record |= {f"loss/{name}": value for name, value in report.terms.items() if name != "total"}
    record |= {f"teacher/{name}": value for name, value in report.statistics.items()}
    if report.expert_load is not None:
        record["expert_load"] = report.expert_load.tolist()
    return record


def _record_trouble(run: Run, batch: Batch, report: StepReport) -> None:
    """Write replaced samples and the samples of a skipped step to this rank's quarantine file, and
    faults of reading that were overcome, counted by kind, to its faults file."""
    faults = {
        name.removeprefix("fault/"): count
        for name, count in batch.reads.items()
        if name.startswith("fault/")
    }
    if faults:
        _append(run.run_dir / f"faults-{run.rank:05d}.jsonl", [{"step": batch.step, **faults}])
    records = list(batch.quarantined)
    if not report.applied:
        records += [
            {
                "key": key,
                "reason": "the step was skipped: not finite",
                "step": batch.step,
                "substitute": None,
            }
            for key in report.skipped_keys
        ]
    if records:
        _append(run.run_dir / f"quarantine-{run.rank:05d}.jsonl", records)


def _append(path: Path, records: list[dict]) -> None:
    """Add records to a file of JSON lines."""
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
