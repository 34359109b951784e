"""Every schedule of the training as a function of the step alone.

So a continued run meets the same values.
"""

import math
from dataclasses import dataclass

from engine.config.settings import OptimizerSettings, Settings


@dataclass(frozen=True)
class StepSchedule:
    """The scheduled values of one step."""

    lr: float
    last_layer_lr: float  # of the heads' last layer: 0 while it is frozen
    weight_decay: float
    momentum: float  # of the teacher: teacher <- momentum teacher + (1 - momentum) student
    teacher_temperature: float


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from ``start`` at progress 0 to ``end`` at progress 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def linear(start: float, end: float, progress: float) -> float:
    """A straight line from ``start`` at progress 0 to ``end`` at progress 1 and after."""
    return start + (end - start) * min(progress, 1.0)


class Schedules:
    """The schedules of a run: cosines over its steps, the learning rate warmed up linearly.

    Source: supplement, section C.
    """

    def __init__(self, settings: Settings, optimizer: OptimizerSettings):
        """Take the settings of a run and the first values of its optimizer."""
        self.schedule = settings.schedule
        self.loss = settings.loss
        self.optimizer = optimizer

    def at(self, step: int) -> StepSchedule:
        """Values of step ``step`` of 0 .. steps - 1; the last step has the final values exactly."""
        schedule = self.schedule
        loss = self.loss
        progress = _share(step, schedule.steps - 1)
        warmed_up = _share(step, loss.teacher_temperature_warmup)
        lr = self.lr(step)
        last_layer_lr = lr
        if step < loss.freeze_last_layer:
            last_layer_lr = 0.0
        return StepSchedule(
            lr=lr,
            last_layer_lr=last_layer_lr,
            weight_decay=cosine(self.optimizer.weight_decay, schedule.final_weight_decay, progress),
            momentum=cosine(schedule.ema_start, schedule.ema_end, progress),
            teacher_temperature=linear(
                loss.teacher_temperature_start, loss.teacher_temperature, warmed_up
            ),
        )

    def lr(self, step: int) -> float:
        """Learning rate: up in ``warmup`` equal steps, then a cosine from the peak.

        The steps of the warm-up leave out 0 and the peak.
        """
        peak = self.optimizer.lr
        warmup = self.schedule.warmup
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        progress = _share(step - warmup, self.schedule.steps - 1 - warmup)
        return cosine(peak, self.schedule.final_lr, progress)


def _share(done: int, total: int) -> float:
    """``done / total`` cut to 0 .. 1; a span without length counts as passed."""
    if total <= 0:
        return 1.0
    return min(max(done / total, 0.0), 1.0)
