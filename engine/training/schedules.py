"""Every schedule of the training as a function of the step alone, so that a continued run meets the
same values."""

import math
from dataclasses import dataclass

from engine.config.settings import Settings


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
    """The schedules of a run (supplement, section C): cosines over its steps, the learning rate
    warmed up linearly.

    Args: settings: the run's ``skysense`` settings. optimizer_params: DeepSpeed's
        ``optimizer.params``: ``lr`` is the peak, ``weight_decay`` the first value.
    """

    def __init__(self, settings: Settings, optimizer_params: dict):
        self.schedule = settings.schedule
        self.loss = settings.loss
        self.peak_lr = optimizer_params["lr"]
        self.weight_decay = optimizer_params["weight_decay"]

    def at(self, step: int) -> StepSchedule:
        """Values of step ``step`` of 0 .. steps - 1; the last step has the final values exactly."""
        schedule = self.schedule
        progress = _share(step, schedule.steps - 1)
        lr = self.lr(step)
        return StepSchedule(
            lr=lr,
            last_layer_lr=0.0 if step < self.loss.freeze_last_layer else lr,
            weight_decay=cosine(self.weight_decay, schedule.final_weight_decay, progress),
            momentum=cosine(schedule.ema_start, schedule.ema_end, progress),
            teacher_temperature=linear(
                self.loss.teacher_temperature_start,
                self.loss.teacher_temperature,
                _share(step, self.loss.teacher_temperature_warmup),
            ),
        )

    def lr(self, step: int) -> float:
        """Learning rate: up in ``warmup`` equal steps that leave out 0 and the peak, then a cosine
        from the peak."""
        warmup = self.schedule.warmup
        if step < warmup:
            return self.peak_lr * (step + 1) / (warmup + 1)
        return cosine(
            self.peak_lr,
            self.schedule.final_lr,
            _share(step - warmup, self.schedule.steps - 1 - warmup),
        )


def _share(done: int, whole: int) -> float:
    """``done / whole`` cut to 0 .. 1; a span without length has been passed."""
    return min(max(done / whole, 0.0), 1.0) if whole > 0 else 1.0
