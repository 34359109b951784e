"""A run folder holds one line of checkpoints, each the parent of the next.

A run that goes back leaves a branch behind. Its checkpoints step aside, so that the highest number
in the folder is always the last one that was written.
"""

from pathlib import Path


def leave_branch(run_dir: Path, chosen: Path | None, attempt: int) -> Path | None:
    """Move the checkpoints that do not lead to ``chosen`` into a folder of their own.

    They are complete there, and a run can go back to them with ``--resume CHECKPOINT``.

    Args:
        run_dir: Run folder.
        chosen: The checkpoint that the run continues from; None for a run that starts anew. Of a
            folder that it does not lie in, no checkpoint leads to it.
        attempt: Number of the attempt that goes back; it names the new folder.

    Returns:
        The new folder, None if there was nothing to move.
    """
    root = run_dir / "checkpoints"
    left = sorted(root.glob("step-*"))
    if chosen is not None and chosen.resolve().parent == root.resolve():
        left = [folder for folder in left if folder.name > chosen.name]
    if not left:
        return None
    aside = root / f"aside-{attempt:08d}"
    aside.mkdir()
    for folder in left:
        folder.rename(aside / folder.name)
    return aside
