"""The fastest setting of a run that fits its card, among many that are planned.

How activations are kept, how experts are spread and which kernels compute change no result, so the
advice chooses freely among them. The batch and the cells of the fusion are part of what is trained:
they are planned too, with what was chosen, for whoever may still change them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.config.load import Config, load
from engine.planning.making import plan_all
from engine.planning.plan import Plan, Setting
from models.kernels.dispatch import AUTO, OFF, has_triton
from models.recompute import POINTWISE, POLICIES

FACTORS = (0.5, 2, 4)  # of the batch


@dataclass(frozen=True)
class Advice:
    """What was planned."""

    same: list[Plan]  # of the same training, the fastest first
    others: list[Plan]  # of another batch or another fusion, the most samples a second first

    @property
    def best(self) -> Plan | None:
        """The fastest of the same training that fits, or None."""
        return fastest(self.same)

    def record(self) -> dict:
        """The advice as plain values."""
        chosen = self.best
        return {
            "same_training": [tried.record() for tried in self.same],
            "other_trainings": [tried.record() for tried in self.others],
            "best": None if chosen is None else chosen.record(),
        }


def advise(setting: Setting, *, say: Callable[[str], None]) -> Advice:
    """Plan what may be faster than a setting, or smaller.

    Args:
        setting: As the user has it.
        say: Takes lines of progress.
    """
    say("the same training: each recompute and ep_size")
    same = plan_all(same_training(setting), say=say)
    chosen = fastest(same) or smallest(same)
    kernels = with_other_kernels(chosen)
    if kernels:
        say("the same training: with kernels, or without")
        same += plan_all(kernels, say=say)
        chosen = fastest(same) or smallest(same)
    say("other trainings: batches and cells of the fusion")
    others = plan_all(other_trainings(chosen), say=say)
    return Advice(
        same=sorted(same, key=lambda plan: plan.step_time),
        others=sorted(others, key=lambda plan: -plan.samples_per_second),
    )


def fastest(plans: Sequence[Plan]) -> Plan | None:
    """The fastest plan that fits, or None."""
    fitting = [plan for plan in plans if plan.fits]
    return min(fitting, key=lambda plan: plan.step_time, default=None)


def smallest(plans: Sequence[Plan]) -> Plan:
    """The plan that reserves the least memory."""
    return min(plans, key=lambda plan: plan.memory.reserved)


def same_training(setting: Setting) -> list[Setting]:
    """A setting with each ``ep_size`` and each ``recompute``."""
    settings = []
    for ep_size in _ep_sizes(_config(setting), setting.world_size):
        settings += _policies(setting.changed(f"skysense.ep_size={ep_size}"))
    return settings


def with_other_kernels(plan: Plan) -> list[Setting]:
    """The setting of a plan with each ``recompute``, with kernels if it has none, else without."""
    if not has_triton():
        return []
    kernels = OFF
    if plan.setting.kernels == OFF:
        kernels = AUTO
    return _policies(replace(plan.setting, kernels=kernels))


def other_trainings(plan: Plan) -> list[Setting]:
    """The setting of a plan with other batches, and with other cells of the fusion."""
    settings = []
    for factor in FACTORS:
        samples = plan.samples * factor
        if samples >= 1:
            batch = int(samples) * plan.world_size
            settings.append(plan.setting.changed(f"train_batch_size={batch}"))
    if plan.cells_per_token is not None:
        cells = {max(1, plan.cells_per_token // 2), 2 * plan.cells_per_token}
        for count in sorted(cells - {plan.cells_per_token}):
            place = "skysense.model.fusion.cells_per_token"
            settings.append(plan.setting.changed(f"{place}={count}"))
    return settings


def _config(setting: Setting) -> Config:
    return load(setting.path, setting.overrides, world_size=setting.world_size)


def _ep_sizes(config: Config, world_size: int) -> list[int]:
    """Numbers of ranks over which the experts can be spread."""
    moe = config.settings.model.moe
    if moe is None:
        return [config.settings.ep_size]
    sizes = []
    for size in range(1, moe.experts + 1):
        if moe.experts % size == 0 and world_size % size == 0:
            sizes.append(size)
    return sizes


def _policies(setting: Setting) -> list[Setting]:
    """A setting with each ``recompute``."""
    compiled = _config(setting).settings.compile
    settings = []
    for policy in POLICIES:
        if policy != POINTWISE or not compiled:  # these two exclude each other
            settings.append(setting.changed(f"skysense.recompute={policy}"))
    return settings
