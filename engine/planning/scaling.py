"""A run on other numbers of ranks: the same batch over all of them, or the same share for each."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.planning.making import number_at_once, plan_all
from engine.planning.plan import Plan, Setting

WORLD_SIZES = tuple(2**exponent for exponent in range(11))  # 1 to 1024


@dataclass(frozen=True)
class Scaling:
    """Plans by number of ranks, ascending."""

    same_share: list[Plan]  # each rank has as many samples as in the plan at hand
    same_batch: list[Plan]  # from the fewest ranks that fit, and one that does not

    def record(self) -> dict:
        """Both series as plain values."""
        return {
            "same_share": [plan.record() for plan in self.same_share],
            "same_batch": [plan.record() for plan in self.same_batch],
        }


def scale(planned: Plan, *, say: Callable[[str], None]) -> Scaling:
    """Plan a run on 1 to 1024 ranks.

    Where there are fewer ranks than ``ep_size``, it is the largest that divides them.

    Args:
        planned: The run as it is.
        say: Takes lines of progress.
    """
    say(f"{planned.samples} samples a rank, on 1 to {WORLD_SIZES[-1]} ranks")
    same_share = plan_all(with_same_share(planned), say=say)
    say(f"a batch of {planned.batch_size}, as long as it fits")
    waiting = with_same_batch(planned)[::-1]
    same_batch: list[Plan] = []
    # Fewer ranks have more samples each. What fits no more is not worth the time that it takes.
    while waiting and all(plan.fits for plan in same_batch):
        count = number_at_once()
        same_batch += plan_all(waiting[:count], say=say)
        waiting = waiting[count:]
    return Scaling(same_share, same_batch[::-1])


def with_same_share(planned: Plan) -> list[Setting]:
    """The setting of a plan on each number of ranks, with as many samples a rank."""
    settings = []
    for size in WORLD_SIZES:
        settings.append(_on(planned, size, planned.samples * size))
    return settings


def with_same_batch(planned: Plan) -> list[Setting]:
    """The setting of a plan on each number of ranks that divides its batch."""
    settings = []
    for size in WORLD_SIZES:
        if planned.batch_size % size == 0:
            settings.append(_on(planned, size, planned.batch_size))
    return settings


def _on(planned: Plan, world_size: int, batch_size: int) -> Setting:
    """The setting of a plan on another number of ranks."""
    setting = planned.setting.changed(
        f"train_batch_size={batch_size}",
        f"skysense.ep_size={math.gcd(planned.ep_size, world_size)}",
    )
    return replace(setting, world_size=world_size)
