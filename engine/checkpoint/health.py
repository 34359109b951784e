"""Whether the steps before a checkpoint did anything: a run that diverged skips all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError
from engine.checkpoint.files import read_state

KEY = "health"  # in state.json


@dataclass(frozen=True)
class Health:
    """What the steps between a checkpoint and the one before it did.

    A checkpoint without a word on it, which was saved outside a run's loop, is healthy.
    """

    steps: int = 0  # made
    applied: int = 0  # of these; the others were skipped, because a value was not finite
    skipped_last: int = 0  # in a row, at the end

    @property
    def is_healthy(self) -> bool:
        """Whether the last step was applied: its loss and its gradients were finite."""
        return self.skipped_last == 0


def read_health(folder: Path) -> Health:
    """The health that a checkpoint was saved with.

    Raises:
        InputError: The checkpoint's state is missing or damaged.
    """
    return Health(**read_state(folder).get(KEY, {}))


def last_healthy(checkpoints: Sequence[Path]) -> Path | None:
    """The last healthy one of some checkpoints, oldest first; None if there is none."""
    for folder in reversed(checkpoints):
        try:
            health = read_health(folder)
        except InputError:
            continue  # a damaged checkpoint is nothing to go back to
        if health.is_healthy:
            return folder
    return None


def health_warning(folder: Path) -> str | None:
    """One line on a checkpoint of a run that has diverged, None for a healthy one.

    Raises:
        InputError: The checkpoint's state is missing or damaged.
    """
    health = read_health(folder)
    if health.is_healthy:
        return None
    line = (
        f"warning: {folder}: the last {health.skipped_last} steps before it were skipped, because "
        "values were not finite; its weights may be worth nothing"
    )
    earlier = last_healthy(sorted(folder.parent.glob("step-*")))
    if earlier is not None:
        line += f"; the last healthy checkpoint is {earlier}"
    return line
