"""Which checkpoints of a run stay."""

from pathlib import Path

from engine.checkpoint.files import complete, step_of
from engine.checkpoint.health import last_healthy
from engine.checkpoint.publish import discard, remove


def prune(folder: Path, *, keep: int, keep_every: int) -> None:
    """Delete what need not stay after a checkpoint was published.

    The last healthy one stays, however many a diverged run has saved since. Later ones, of a run
    that was resumed from an earlier step, stay too.

    Args:
        folder: The new checkpoint.
        keep: Number of checkpoints up to the new one that stay.
        keep_every: Steps; see ``kept_for_ever``.
    """
    older = [other for other in complete(folder.parent) if other.name < folder.name]
    surplus = older[: max(len(older) - keep + 1, 0)]
    lasting = {*kept_for_ever(older, keep_every), last_healthy([*older, folder])}
    for checkpoint in surplus:
        if checkpoint not in lasting:
            remove(checkpoint)
    discard(folder.parent)


def kept_for_ever(checkpoints: list[Path], every: int) -> set[Path]:
    """The first checkpoint at or after each multiple of ``every`` steps; none with 0.

    Args:
        checkpoints: Oldest first.
        every: Steps.
    """
    first: dict[int, Path] = {}
    for checkpoint in checkpoints:
        multiple = step_of(checkpoint) // max(every, 1)
        first.setdefault(multiple, checkpoint)
    first.pop(0, None)  # before the first multiple
    if every == 0:
        return set()
    return set(first.values())
