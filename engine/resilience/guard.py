"""Watches a run: is the loss finite everywhere, has it jumped, has the teacher collapsed.

A run has diverged if its updates are skipped, or its loss stays where it has jumped to, for
``patience`` steps. A jump that goes by itself is only reported.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.config.settings import GuardSettings
from models.moe.loads import TokenKind
from models.reducer import Reducer

_HISTORY = 50  # steps over which the loss's mean and spread fade
_COLLAPSED = "collapsed to one prototype: raise loss.teacher_temperature or lower the learning rate"
_UNIFORM = "says nothing: lower loss.teacher_temperature_start or lengthen schedule.warmup"


def all_finite(loss: Tensor, reducer: Reducer) -> bool:
    """Whether ``loss`` is finite on every rank.

    It is a collective call: every rank makes it, and every rank gets the same answer.
    """
    not_finite = ~torch.isfinite(loss.detach()).all()
    return not reducer.max(not_finite.float()).item()


@dataclass(frozen=True)
class Verdict:
    """What the guard says about a step."""

    warnings: list[str]  # each is sent once, when a state begins
    stop: bool  # whether the run should save and end, unless it can go back
    diverged: str | None = None  # why it should go back to a healthy checkpoint


class Guard:
    """Turns the run's figures into warnings, and into a stop if the settings say so.

    It decides from figures that are equal on all ranks (reduced ones), so all ranks decide alike.
    """

    def __init__(self, settings: GuardSettings, prototypes: int):
        """Begin without history.

        Args:
            settings: Thresholds, and what to do.
            prototypes: K of the DINO heads. Entropies are compared with log K.
        """
        self.settings = settings
        self.log_k = math.log(prototypes)
        self.mean = 0.0  # of the loss
        self.variance = 0.0
        self.steps = 0  # in the loss's history
        self.skipped = 0  # updates in a row
        self.mark: float | None = None  # a loss above it is still that of the last spike
        self.high = 0  # steps in a row with such a loss
        # head or kind of tokens -> steps in a row outside the healthy range
        self.unhealthy: dict[str | TokenKind, int] = {}

    def state(self) -> dict[str, Any]:
        """What the guard remembers, as JSON, for a checkpoint."""
        unhealthy = []
        for name, steps in self.unhealthy.items():
            unhealthy.append([name, steps])
        return {
            "mean": self.mean,
            "variance": self.variance,
            "steps": self.steps,
            "skipped": self.skipped,
            "mark": self.mark,
            "high": self.high,
            "unhealthy": unhealthy,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.mean = state["mean"]
        self.variance = state["variance"]
        self.steps = state["steps"]
        self.skipped = state["skipped"]
        self.mark = state.get("mark")  # checkpoints of an earlier release have none
        self.high = state.get("high", 0)
        self.unhealthy = {}
        for name, steps in state["unhealthy"]:
            if isinstance(name, list):  # JSON has no tuples
                name = TokenKind(*name)
            self.unhealthy[name] = steps

    def check(
        self,
        loss: float,
        entropies: Mapping[str, float],
        *,
        dropped: Mapping[TokenKind, float] | None = None,
        applied: bool = True,
    ) -> Verdict:
        """Take in one step.

        Args:
            loss: Mean over ranks.
            entropies: Head name -> mean entropy of the teacher's targets, in nats.
            dropped: Kind of tokens -> share of them that the experts dropped.
            applied: Whether the update was made. False when DeepSpeed skipped it.
        """
        if self.high >= self.settings.patience and self.settings.action != "rollback":
            self._forget_spike()  # it was said at the step before, and is the level now
        serious = self._check_skips(applied)
        for name, entropy in entropies.items():
            serious += self._check_entropy(name, entropy)
        remarks = self._check_spike(loss) + self._check_high(loss)
        for kind, share in (dropped or {}).items():
            remarks += self._check_dropped(kind, share)
        diverged = None
        if self.settings.action == "rollback":
            diverged = self._divergence()
        stop = bool(serious) and self.settings.action != "warn"
        return Verdict(serious + remarks, stop or diverged is not None, diverged)

    def _divergence(self) -> str | None:
        """Why the run has diverged; None if it has not."""
        if self.skipped >= self.settings.patience:
            return f"{self.skipped} updates in a row were skipped"
        if self.high >= self.settings.patience:
            return f"the loss has been above {self.mark:.4f} for {self.high} steps"
        return None

    def _check_skips(self, applied: bool) -> list[str]:
        """Too many updates in a row were skipped."""
        if applied:
            self.skipped = 0
            return []
        self.skipped += 1
        if self.skipped != self.settings.patience:
            return []
        return [
            f"{self.skipped} updates in a row were skipped for non-finite values: "
            "lower the learning rate"
        ]

    def _check_entropy(self, name: str, entropy: float) -> list[str]:
        """A head's targets are all alike, or say nothing, for ``patience`` steps in a row."""
        share = entropy / self.log_k
        if share < self.settings.entropy_low:
            advice = _COLLAPSED
        elif share > self.settings.entropy_high:
            advice = _UNIFORM
        else:
            self.unhealthy[name] = 0
            return []
        if not self._lasts(name):
            return []
        return [
            f"teacher entropy of {name} has been {share:.3f} of log K for "
            f"{self.settings.patience} steps: it {advice}"
        ]

    def _check_dropped(self, kind: TokenKind, share: float) -> list[str]:
        """A kind of tokens has lost too many at the experts for ``patience`` steps in a row."""
        limit = self.settings.dropped
        if share <= limit:
            self.unhealthy[kind] = 0
            return []
        if not self._lasts(kind):
            return []
        return [
            f"the experts have dropped more than {limit:.0%} of the tokens of {kind.modality} in "
            f"{kind.view} views for {self.settings.patience} steps, now {share:.0%}: raise "
            "loss.moe_balance or model.moe.capacity_factor"
        ]

    def _lasts(self, name: str | TokenKind) -> bool:
        """Count a step outside the healthy range; whether it is the one that ``patience`` names."""
        self.unhealthy[name] = self.unhealthy.get(name, 0) + 1
        return self.unhealthy[name] == self.settings.patience

    def _check_spike(self, loss: float) -> list[str]:
        """The loss is far above its recent mean. A spike does not move the mean."""
        if not math.isfinite(loss):
            return []  # a skipped update, counted elsewhere
        deviation = math.sqrt(self.variance)
        least_deviation = max(deviation, 1e-3 * abs(self.mean))
        above = loss - self.mean
        if self.steps >= _HISTORY and above > self.settings.spike * least_deviation:
            self.steps = 0  # one message for each spike, then a new history from this loss on
            if self.mark is None:
                self.mark = self.mean + self.settings.spike * least_deviation
            return [
                f"loss {loss:.4f} has jumped from a mean of {self.mean:.4f} "
                f"(deviation {deviation:.4f})"
            ]
        self.steps += 1
        weight = 1 / min(self.steps, _HISTORY)
        self.mean += weight * above
        self.variance = (1 - weight) * (self.variance + weight * above * above)
        return []

    def _check_high(self, loss: float) -> list[str]:
        """The loss stays where a spike has brought it."""
        if self.mark is None or not math.isfinite(loss):
            return []
        if loss <= self.mark:
            self._forget_spike()
            return []
        self.high += 1
        if self.high != self.settings.patience:
            return []
        return [f"the loss has been above {self.mark:.4f} for {self.high} steps since it jumped"]

    def _forget_spike(self) -> None:
        self.mark = None
        self.high = 0
