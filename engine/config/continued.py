"""Which settings a run may change when it continues from a checkpoint, and which it may not.

A setting is either taken, so that the next step follows it, or refused by name. Nothing is shown in
a configuration and then does nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.flat import flat

_FUNCTION = "it belongs to the function that the weights were trained for"
_START = "it says how a new run starts, and this one has started"

# Place -> why what stands there stays as the checkpoint has it. A rule holds for all places below;
# the longest one counts.
FIXED = {
    "skysense.seed": "the order of the samples and every random choice follow from it",
    "skysense.model": _FUNCTION,
    "skysense.data.frames": _FUNCTION,
    "skysense.loss.centring": "the running centres of the targets belong to it",
    "skysense.init": _START,
    "skysense.text.architecture": "the class embeddings follow from it",
    "skysense.text.random": "the class embeddings follow from it",
    "optimizer.type": "the moments belong to it",
    "zero_optimization.stage": "the engine knows no other",
}
# Places whose values the next step follows.
TAKEN = (
    "train_batch_size",
    "gradient_clipping",
    "optimizer.params",
    "bf16",
    "zero_optimization",
    "communication_data_type",
    "data_types",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "steps_per_print",
    "log_level",
    "disable_python_gc",
    "dump_state",
    "wall_clock_breakdown",
    "memory_breakdown",
    "timers",
    "comms_logger",
    "flops_profiler",
    "csv_monitor",
    "wandb",
    "skysense.description",
    "skysense.run_dir",
    "skysense.ep_size",
    "skysense.recompute",
    "skysense.compile",
    "skysense.layer_norm",
    "skysense.needs_gpu",
    "skysense.threads",
    "skysense.watchdog",
    "skysense.log_every",
    "skysense.collect_garbage_every",
    "skysense.compare_ranks_every",
    "skysense.data",  # other samples or statistics are refused where the dataset is opened
    "skysense.model.drop_path",
    "skysense.model.moe.capacity_factor",
    "skysense.model.moe.min_capacity",
    "skysense.model.moe.implementation",
    "skysense.model.context.momentum",
    "skysense.model.context.epsilon",
    "skysense.model.context.iterations",
    "skysense.model.context.drop",
    "skysense.loss",
    "skysense.schedule",
    "skysense.text.weights",  # other embeddings are refused where the objective takes them
    "skysense.checkpoint",
    "skysense.guard",
    "skysense.evaluate",
)


@dataclass(frozen=True)
class Change:
    """A setting that differs between a checkpoint and the run that continues it."""

    saved: str  # JSON, or "nothing" for a place that is not there
    now: str


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Change]:
    """Dotted place -> the change, where two complete configurations differ.

    Args:
        saved: ``Config.complete()`` of the run that made the checkpoint.
        now: The same of this run.
    """
    before = flat(saved)
    after = flat(now)
    found = {}
    for place in before | after:
        change = Change(_shown(before, place), _shown(after, place))
        if change.saved != change.now:
            found[place] = change
    return found


def _shown(table: Mapping[str, Any], place: str) -> str:
    if place not in table:
        return "nothing"
    return json.dumps(table[place], ensure_ascii=False)


def rule(place: str) -> str | None:
    """Why the setting at a dotted place may not change, None if it may.

    Raises:
        KeyError: No rule covers the place.
    """
    name = place
    while name:
        if name in FIXED:
            return FIXED[name]
        if name in TAKEN:
            return None
        name = name.rpartition(".")[0]
    raise KeyError(place)


def refusal(found: Mapping[str, Change]) -> str | None:
    """One line on the changes that a continued run cannot take, None if it can take all.

    Args:
        found: Of ``changes``.
    """
    reasons = {}
    for place in found:
        reason = rule(place)
        if reason is not None:
            reasons[place] = reason
    if not reasons:
        return None
    place, *others = reasons
    change = found[place]
    line = f"{place}: expected {change.saved} as in the checkpoint, found {change.now}: "
    line += reasons[place]
    if others:
        line += f"; also changed: {', '.join(others)}"
    return f"{line}; set it back, or start a new run with skysense.init.path"
