"""Whether the steps before a checkpoint were good ones: a run that diverges skips them, or its loss
is high.
"""

from collections.abc import Iterator, Sequence
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
    high_last: int = 0  # in a row, at the end, with a loss where a spike had brought it

    @property
    def is_healthy(self) -> bool:
        """Whether the last step was applied, and its loss not that of a spike."""
        return self.skipped_last == 0 and self.high_last == 0


def read_health(folder: Path) -> Health:
    """The health that a checkpoint was saved with.

    Raises:
        InputError: The checkpoint's state is missing or damaged.
    """
    return Health(**read_state(folder).get(KEY, {}))


def last_healthy(checkpoints: Sequence[Path]) -> Path | None:
    """The last healthy one of some checkpoints, oldest first; None if there is none."""
    return next(healthy(checkpoints), None)


def healthy(checkpoints: Sequence[Path]) -> Iterator[Path]:
    """The healthy ones of some checkpoints, oldest first; they come newest first."""
    for folder in reversed(checkpoints):
        try:
            health = read_health(folder)
        except InputError:
            continue  # a damaged checkpoint is nothing to go back to
        if health.is_healthy:
            yield folder


def health_warning(folder: Path) -> str | None:
    """One line on a checkpoint of a run that has diverged, None for a healthy one.

    Raises:
        InputError: The checkpoint's state is missing or damaged.
    """
    health = read_health(folder)
    if health.is_healthy:
        return None
    skipped = health.skipped_last
    what = f"the last {skipped} steps before it were skipped, because values were not finite"
    if skipped == 0:
        what = f"the loss was far above its usual values in the last {health.high_last} steps"
    line = f"warning: {folder}: {what}; its weights may be worth nothing"
    earlier = last_healthy(sorted(folder.parent.glob("step-*")))
    if earlier is not None:
        line += f"; the last healthy checkpoint is {earlier}"
    return line
