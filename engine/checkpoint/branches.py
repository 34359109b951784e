"""A run folder holds one line of checkpoints, each the parent of the next.

A run that goes back leaves a branch behind. Its checkpoints step aside, so that the highest number
in the folder is always the last one that was written.
"""

from collections.abc import Sequence
from pathlib import Path


def off_line(run_dir: Path, chosen: Path | None) -> list[Path]:
    """The checkpoints of a run that do not lead to ``chosen``, oldest first.

    Args:
        run_dir: Run folder.
        chosen: The checkpoint that the run continues from; None for a run that starts anew. Of a
            folder that it does not lie in, no checkpoint leads to it.
    """
    root = run_dir / "checkpoints"
    left = sorted(root.glob("step-*"))
    if chosen is not None and chosen.resolve().parent == root.resolve():
        left = [folder for folder in left if folder.name > chosen.name]
    return left


def make_aside(run_dir: Path, name: str) -> Path:
    """A new folder for what a run leaves behind; a run can go back to checkpoints in it.

    Args:
        run_dir: Run folder.
        name: Which no other has.
    """
    aside = run_dir / "checkpoints" / f"aside-{name}"
    aside.mkdir(parents=True)
    return aside


def move(checkpoints: Sequence[Path], aside: Path) -> None:
    """Let checkpoints step aside. They stay complete there."""
    for folder in checkpoints:
        folder.rename(aside / folder.name)
