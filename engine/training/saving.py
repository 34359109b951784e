"""When a run saves itself."""

import time
from dataclasses import asdict

import torch

from engine.checkpoint.health import KEY, Health
from engine.checkpoint.save import Saver
from engine.resilience.guard import Guard
from engine.resilience.progress import PROGRESS, SAVE
from engine.training.assemble import Run
from engine.training.continuing import own_state
from engine.training.run_folder import RunFolder


class Saving:
    """Saves by steps and by minutes, while the run trains on. Every rank makes the same calls."""

    def __init__(self, run: Run, folder: RunFolder, guard: Guard):
        settings = run.settings.checkpoint
        self.run = run
        self.guard = guard
        self.attempt = folder.attempt
        self.settings = settings
        self.saver = Saver(
            run.run_dir,
            engine=run.step.engine,
            teacher=run.step.ema,
            keep=settings.keep,
            keep_every=settings.keep_every,
            check=folder.check,
        )
        self.saved = run.start  # steps in the newest checkpoint, or in the one being written
        self.began = time.monotonic()  # when that one was begun
        self.applied = 0  # steps since then that changed the weights

    def after(self, steps: int, *, applied: bool) -> None:
        """Begin a checkpoint after a step if one is due; publish the one before it.

        Args:
            steps: Steps made so far.
            applied: Whether the last of them changed the weights.

        Raises:
            RankError: A rank could not write, or another job has taken the run folder over; raised
                on all ranks.
        """
        PROGRESS.enter(SAVE)
        self.applied += applied
        self.saver.poll()
        if steps % self.settings.every == 0 or self._is_late():
            self._start(steps)

    def finish(self) -> None:
        """Publish the checkpoint that is being written, if there is one.

        Raises:
            RankError: As ``after``.
        """
        PROGRESS.enter(SAVE)
        self.saver.finish()

    def go_back(self) -> None:
        """The run goes on from an earlier checkpoint; no save may be under way."""
        self.saved = self.run.start
        self.began = time.monotonic()
        self.applied = 0

    def end(self, steps: int) -> None:
        """Leave a checkpoint of the last step.

        Raises:
            RankError: As ``after``.
        """
        PROGRESS.enter(SAVE)
        if self.saved != steps:
            self._start(steps)
        self.saver.finish()

    def _is_late(self) -> bool:
        """Whether the last save began too many minutes ago, by the clock of rank 0."""
        if not self.settings.minutes:
            return False
        late = time.monotonic() - self.began >= 60 * self.settings.minutes
        own = torch.tensor(float(late and self.run.rank == 0), device=self.run.step.device)
        return bool(self.run.reducer.max(own))

    def _start(self, steps: int) -> None:
        run = self.run
        if run.settings.compare_ranks_every:
            # No checkpoint of ranks that differ may replace one of ranks that do not.
            run.step.compare_ranks({"the guard's memory": self.guard.state()})
        health = Health(
            steps=steps - self.saved,
            applied=self.applied,
            skipped_last=self.guard.skipped,
            high_last=self.guard.high,
        )
        extra = {
            **own_state(run, steps, attempt=self.attempt),
            "guard": self.guard.state(),
            KEY: asdict(health),
        }
        run.parent = self.saver.start(steps, extra)
        self.saved = steps
        self.applied = 0
        self.began = time.monotonic()
