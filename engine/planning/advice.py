"""The fastest setting of a run that fits a card."""

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.planning.cards import Card
from engine.planning.plan import Plan, plan
from engine.planning.time import Efficiency
from models.recompute import POLICIES


def tries(
    path: Path,
    overrides: Sequence[str],
    *,
    world_size: int,
    card: Card,
    efficiency: Efficiency,
    say: Callable[[str], None],
) -> list[Plan]:
    """The plans of a run with each ``recompute``, the fastest first.

    Args:
        path: Configuration file.
        overrides: ``place=value`` of it.
        world_size: Number of ranks.
        card: The GPU.
        efficiency: What is reached of its rates.
        say: Takes lines of progress.
    """
    plans = []
    for policy in POLICIES:
        say(f"trying recompute {policy}")
        changed = [*overrides, f"skysense.recompute={policy}"]
        plans.append(plan(path, changed, world_size=world_size, card=card, efficiency=efficiency))
    return sorted(plans, key=lambda found: found.step_time)


def best(plans: list[Plan]) -> Plan | None:
    """The fastest plan that fits, or None."""
    for candidate in sorted(plans, key=lambda found: found.step_time):
        if candidate.fits:
            return candidate
    return None
