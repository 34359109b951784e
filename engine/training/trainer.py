"""The loop: open everything, continue where the run stopped, step, log, save."""

import contextlib
import sys
import time
from pathlib import Path

import torch

from data.errors import InputError
from data.stream.mixture import Mixture
from data.stream.sample import Batch
from engine.config.load import Config
from engine.config.settings import Settings
from engine.config.snapshot import snapshot
from engine.distributed.agreement import require_agreement
from engine.distributed.collectives import collect, on_first_rank, together
from engine.errors import ConfigError
from engine.evaluate.held_out import STEPS_KEY, HeldOut, summary
from engine.resilience.guard import Guard, Verdict
from engine.resilience.preempt import Preempt, Request
from engine.resilience.progress import DATA, EVALUATE, GO_BACK, PROGRESS
from engine.resilience.signals import Signals
from engine.resilience.supervise import Supervision, begin
from engine.training.assemble import Run, assemble
from engine.training.common_facts import common_facts
from engine.training.console import say
from engine.training.continuing import Origin, find_origin, restore
from engine.training.ending import Ending, requested
from engine.training.going_back import NoRollback, next_rollback
from engine.training.housekeeping import GarbageCollection
from engine.training.inputs import open_dataset
from engine.training.loss_terms import TOTAL
from engine.training.metrics import Metrics
from engine.training.records import loss_note, metrics_record, replaced, write_trouble
from engine.training.run_folder import RunFolder
from engine.training.saving import Saving
from engine.training.step import StepReport
from engine.training.trouble import bad_gradients, describe


def train(
    config: Config,
    device: torch.device,
    signals: Signals,
    *,
    resume: str | None = None,
    stop_at: int | None = None,
) -> int:
    """Train, save, and return the exit code of the run's ``Ending``.

    Args:
        config: Of ``engine.config.load.load``, checked against the world size.
        device: This rank's, of ``zero.init_distributed``.
        signals: Of this process. They end it at once until the first step begins.
        resume: None for a new run, "auto" for the newest complete checkpoint if there is one, or a
            checkpoint's folder.
        stop_at: Save and stop before this step, as a stop file would.

    Raises:
        RankError: One line, the same on all ranks, before anything is trained or written.
    """
    together(lambda: prepare(config.settings))
    together(lambda: _check_run_dir(Path(config.settings.run_dir)))
    dataset = agreed_dataset(config, device, resume=resume, stop_at=stop_at)
    with RunFolder(config.settings.run_dir) as folder:
        run = open_run(config, dataset, device, resume=resume)
        # Here, because a refusal above must leave the run folder as it was.
        on_first_rank(lambda: snapshot(config, run.run_dir, resume=resume is not None))
        folder.begin(run.parent, rollbacks=run.rollbacks)
        with supervised(run, folder.attempt):
            preempt = Preempt(run.run_dir, signals, run.rank)
            try:
                loop = _Loop(run, folder, preempt, stop_at)
                signals.hold()
                return loop.train().exit_code
            finally:
                preempt.close()


def supervised(run: Run, attempt: int) -> Supervision:
    """The watch over this rank while it trains. Every rank must call it."""
    on_first_rank(lambda: begin(run.run_dir))
    PROGRESS.step = run.start
    return Supervision(
        run.run_dir,
        run.settings.watchdog,
        attempt=attempt,
        rank=run.rank,
        world_size=run.reducer.world_size,
    )


def _check_run_dir(run_dir: Path) -> None:
    """Raise ConfigError if something else than a folder lies where the run shall be."""
    if run_dir.exists() and not run_dir.is_dir():
        raise ConfigError(
            f"{run_dir}: expected the folder of a run, found a file; choose another --run_dir"
        )


def prepare(settings: Settings) -> None:
    """Set what holds for the whole process: deterministic kernels, threads.

    Raises:
        ConfigError: The configuration needs a GPU and torch sees none.
    """
    if settings.needs_gpu and not torch.cuda.is_available():
        raise ConfigError(
            "skysense.needs_gpu: expected a GPU for this configuration, torch sees none; use "
            "ds_configs/demo_one_process.json on a CPU, or --set skysense.needs_gpu=false"
        )
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills every new tensor. Nothing here reads what it has not written,
    # and the filling costs a quarter of a step on a CPU. Torch's types do not know the setting.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if settings.threads:
        torch.set_num_threads(settings.threads)


def agreed_dataset(
    config: Config,
    device: torch.device,
    *,
    resume: str | None = None,
    stop_at: int | None = None,
) -> Mixture:
    """The dataset of a run, once all ranks have found that they are about to do the same.

    Arguments and errors are those of ``train``.
    """
    dataset = together(lambda: open_dataset(config.settings))
    facts = together(lambda: common_facts(config, dataset, device, resume=resume, stop_at=stop_at))
    require_agreement(facts)
    return dataset


def open_run(
    config: Config, dataset: Mixture, device: torch.device, *, resume: str | None = None
) -> Run:
    """A run at the step where it goes on. Nothing is written.

    Args:
        config: As for ``train``.
        dataset: Of ``agreed_dataset``.
        device: As for ``train``.
        resume: Likewise.

    Raises:
        RankError: As of ``train``.
    """
    origin = find_origin(Path(config.settings.run_dir), resume)
    run = assemble(config, dataset, device, resumes=origin is not None)
    if origin is not None:
        restore(run, origin)
    return run


def _held_out(run: Run) -> HeldOut:
    """This rank's part of the held-out tiles."""
    return HeldOut.open(
        run.settings,
        run.dataset.regions,
        rank=run.rank,
        world_size=run.reducer.world_size,
    )


class _Loop:
    """Steps until the end, a request to stop, a bad sample too many, or the guard's stop."""

    def __init__(self, run: Run, folder: RunFolder, preempt: Preempt, stop_at: int | None):
        settings = run.settings
        self.run = run
        self.folder = folder
        self.preempt = preempt
        self.steps = settings.schedule.steps
        self.stop = self.steps
        if stop_at is not None:
            self.stop = max(run.start, min(self.steps, stop_at))
        self.guard = Guard(settings.guard, settings.model.head.prototypes)
        self.saving = Saving(run, folder, self.guard)
        self.garbage = GarbageCollection(settings.collect_garbage_every)
        self.held_out: HeldOut | None = None
        if settings.evaluate.every:
            self.held_out = together(lambda: _held_out(run))
        self._begin()

    def _begin(self) -> None:
        """Stand where the run goes on."""
        run = self.run
        self.done = run.start  # steps made
        if run.guard is not None:
            self.guard.load_state(run.guard)
        self.metrics = Metrics(
            run.run_dir,
            steps=self.steps,
            start=run.start,
            rank=run.rank,
            every=run.settings.log_every,
        )
        self.batches = iter(run.batches(self.stop))

    def train(self) -> Ending:
        """Make the steps, and leave a checkpoint of the last one."""
        try:
            ending = self._make_steps()
            self.saving.end(self.done)
            self.run.step.ema.wait()  # no exchange may be under way when the process groups go
        except BaseException:
            with contextlib.suppress(InputError):  # the first error is the one to tell
                self.metrics.close()
            raise
        finally:
            self.garbage.close()
        self.metrics.close()
        self._say(
            f"run ended after {self.done} of {self.steps} steps: {ending.reason} "
            f"(exit code {ending.exit_code})"
        )
        return ending

    def _make_steps(self) -> Ending:
        """Step until there is a reason to end."""
        while self.done < self.stop:
            ending = self._make_step()
            if ending is not None:
                return ending
        if self.done < self.steps:
            return Ending.STOP_AT
        if self.guard.skipped >= self.run.settings.guard.patience:
            return Ending.DIVERGED
        return Ending.DONE

    def _make_step(self) -> Ending | None:
        """One step with its log, its guard and its checkpoint; the reason to end after it."""
        evaluation = {}
        if self.done % max(1, self.run.settings.evaluate.every) == 0:
            evaluation = self._evaluate()
        PROGRESS.enter(DATA)
        began = time.perf_counter()
        batch = self._next()
        if batch is None:
            return Ending.DATA
        waited = time.perf_counter() - began
        report = self.run.step(batch)
        seconds = time.perf_counter() - began
        self.done = batch.step + 1
        PROGRESS.made_step(seconds - waited)
        if self.done == self.steps:
            evaluation = self._evaluate()
        PROGRESS.enter("writing the log")
        self.metrics.log(
            batch.step,
            metrics_record(report) | evaluation,
            samples=self.run.config.batch_size,
            seconds=seconds,
            waited=waited,
            loss_note=loss_note(report),
        )
        for line in replaced(batch):
            say(line)
        for line in describe(batch.step, report.trouble):
            self._say(f"warning: {line}")
        if not report.applied and not report.trouble:
            self._say(f"warning: {bad_gradients(batch.step, report.loss)}")
        write_trouble(self.run.run_dir, self.run.rank, batch, report)
        verdict = self._ask_guard(report)
        if verdict.diverged is not None and self._roll_back(verdict.diverged):
            return self._request()
        self.saving.after(self.done, applied=report.applied)
        self.garbage.after(batch.step)
        if verdict.stop:
            return Ending.GUARD
        # Behind the save: a request that comes meanwhile does not make the run save twice.
        return self._request()

    def _evaluate(self) -> dict[str, float]:
        """Figures of the teacher after the steps made so far; none without held-out tiles.

        Every rank must call it.
        """
        if self.held_out is None:
            return {}
        PROGRESS.enter(EVALUATE)
        self.run.step.ema.wait()  # the trunk alone is called, which does not wait
        figures = self.held_out.measure(self.run.step.teacher.trunk)
        self._say(f"held-out tiles after {self.done} steps: {summary(figures)}")
        return {STEPS_KEY: self.done, **figures}

    def _next(self) -> Batch | None:
        """The next batch, or None on all ranks if one of them has none.

        Then one line says why, whichever rank it is, and all can still save.
        """
        batch = None
        cause = ""
        try:
            batch = next(self.batches)
        except InputError as error:
            cause = str(error)
        missing = torch.tensor(float(batch is None), device=self.run.step.device)
        if not self.run.reducer.max(missing):
            return batch
        causes = [found for found in collect(lambda: cause) if found]
        if self.run.rank == 0:
            print(f"error: {causes[0]}", file=sys.stderr, flush=True)
        return None

    def _ask_guard(self, report: StepReport) -> Verdict:
        """What the guard says about a step; its warnings are in the log."""
        verdict = self.guard.check(
            report.terms[TOTAL],
            report.entropies(),
            dropped=report.dropped,
            applied=report.applied,
        )
        for warning in verdict.warnings:
            self._say(f"warning: {warning}")
        return verdict

    def _roll_back(self, reason: str) -> bool:
        """Go on from the last healthy checkpoint, behind the samples that led here.

        The same objects take the checkpoint's state, as they do at a start: all that a step changes
        is in it.

        Args:
            reason: Why the run has diverged.

        Returns:
            False if there is nothing to go back to, or not once more. Then nothing has changed.
        """
        self.saving.finish()
        PROGRESS.enter(GO_BACK)
        run = self.run
        attempt = self.folder.attempt
        try:
            rollback = next_rollback(run, done=self.done, reason=reason, attempt=attempt)
        except NoRollback as why:
            self._say(f"warning: {reason}, and the run does not go back: {why}")
            return False
        self.batches.close()
        self.metrics.close()
        self.folder.roll_back(rollback)
        restore(run, Origin(rollback.folder(run.run_dir), rollback))
        PROGRESS.step = run.start
        self.saving.go_back()
        self._begin()
        return True

    def _request(self) -> Ending | None:
        """Ask all ranks for requests to stop.

        Raises:
            RankError: Another job has taken the run folder over.
        """
        PROGRESS.enter("voting on requests to stop")
        request = self.preempt.vote(
            self.run.reducer, self.run.step.device, taken=self.folder.is_taken
        )
        if request == Request.TAKEN:
            self.folder.check()  # raises the line that names the other job, on all ranks
        return requested(request)

    def _say(self, line: str) -> None:
        """A line of the log, on rank 0 alone."""
        if self.run.rank == 0:
            say(line)
