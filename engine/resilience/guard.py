"""Watches a run: is the loss finite everywhere, has it jumped, has the teacher collapsed."""

import math

import torch
from torch import Tensor

from engine.config.settings import GuardSettings
from models.reducer import Reducer

_HISTORY = 50  # steps over which the loss's mean and spread fade
_COLLAPSED = "collapsed to one prototype: raise loss.teacher_temperature or lower the learning rate"
_UNIFORM = "says nothing: lower loss.teacher_temperature_start or lengthen schedule.warmup"


def all_finite(loss: Tensor, reducer: Reducer) -> bool:
    """Whether ``loss`` is finite on every rank. A collective call: every rank makes it, every rank
    gets one answer."""
    return not reducer.max((~torch.isfinite(loss.detach()).all()).float()).item()


class Guard:
    """Turns the run's figures into warnings, and into a stop if the settings say so.

    It decides from figures that are equal on all ranks (reduced ones), so all ranks decide alike.

    Args:
        settings: thresholds and what to do.
        prototypes: K of the DINO heads; entropies are compared with log K.
    """

    def __init__(self, settings: GuardSettings, prototypes: int):
        self.settings = settings
        self.log_k = math.log(prototypes)
        self.mean = self.variance = 0.0
        self.seen = self.skipped = 0
        self.outside: dict[str, int] = {}  # head -> steps in a row outside the healthy range

    def check(
        self, loss: float, entropies: dict[str, float], applied: bool = True
    ) -> tuple[list[str], bool]:
        """Takes in one step.

        Args:
            loss: mean over ranks.
            entropies: head name -> mean entropy of the teacher's targets, in nats.
            applied: whether the update was made; False when DeepSpeed skipped it.

        Returns:
            Messages, each sent once when a state begins, and whether the run should save and stop.
        """
        serious = self._skips(applied) + [
            message for name, value in entropies.items() for message in self._entropy(name, value)
        ]
        return serious + self._spike(loss), bool(serious) and self.settings.action == "stop"

    def _skips(self, applied: bool) -> list[str]:
        """Too many updates in a row were skipped."""
        self.skipped = 0 if applied else self.skipped + 1
        if self.skipped != self.settings.patience:
            return []
        return [
            f"{self.skipped} updates in a row were skipped for non-finite values: lower the learning rate"
        ]

    def _entropy(self, name: str, entropy: float) -> list[str]:
        """A head's targets are all alike, or say nothing, for ``patience`` steps in a row."""
        share = entropy / self.log_k
        low, high = share < self.settings.entropy_low, share > self.settings.entropy_high
        self.outside[name] = self.outside.get(name, 0) + 1 if low or high else 0
        if self.outside[name] != self.settings.patience:
            return []
        return [
            f"teacher entropy of {name} has been {share:.3f} of log K for {self.settings.patience} steps: "
            f"it {_COLLAPSED if low else _UNIFORM}"
        ]

    def _spike(self, loss: float) -> list[str]:
        """The loss is far above its recent mean; a spike does not move the mean."""
        if not math.isfinite(loss):
            return []  # the skip counter's business
        deviation = math.sqrt(self.variance)
        above = loss - self.mean
        if self.seen >= _HISTORY and above > self.settings.spike * max(
            deviation, 1e-3 * abs(self.mean)
        ):
            self.seen = 0  # one message a spike, then a new history from where the loss now is
            return [
                f"loss {loss:.4f} has jumped from a mean of {self.mean:.4f} (deviation {deviation:.4f})"
            ]
        self.seen += 1
        weight = 1 / min(self.seen, _HISTORY)
        above = loss - self.mean
        self.mean += weight * above
        self.variance = (1 - weight) * (self.variance + weight * above * above)
        return []
