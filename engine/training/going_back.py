"""To which checkpoint a run goes back that has diverged, and which samples it skips."""

from pathlib import Path

from engine.checkpoint.files import complete, read_state
from engine.checkpoint.health import healthy
from engine.checkpoint.load import sound
from engine.distributed.collectives import on_first_rank
from engine.errors import RankError
from engine.resilience.lease import last_origin
from engine.training.assemble import Run
from engine.training.rollback import Rollback


class NoRollback(Exception):
    """A run cannot go back: one line that says why."""


def next_rollback(run: Run, *, done: int, reason: str, attempt: int) -> Rollback:
    """The rollback that a run is to make now. Nothing is changed; every rank must call it.

    Args:
        run: The run. Its saves are published.
        done: Steps made.
        reason: Why it has diverged.
        attempt: Number of this start.

    Raises:
        NoRollback: There is nothing to go back to, or not once more; raised on all ranks.
    """
    limit = run.settings.guard.rollbacks
    if run.rollbacks >= limit:
        raise NoRollback(f"guard.rollbacks is {limit}, and {run.rollbacks} were made")
    checkpoint = find_checkpoint(run.run_dir)
    name = checkpoint
    if checkpoint.is_relative_to(run.run_dir):
        name = checkpoint.relative_to(run.run_dir)
    return Rollback(
        number=run.rollbacks + 1,
        step=done,
        reason=reason,
        checkpoint=str(name),
        first_sample=on_first_rank(lambda: read_state(checkpoint)["samples"]),
        next_sample=run.samples_before(done),
        attempt=attempt,
    )


def find_checkpoint(run_dir: Path) -> Path:
    """The newest healthy checkpoint of a run whose files are what its manifest says.

    Every rank must call it.

    Raises:
        NoRollback: There is none.
    """
    checkpoints = on_first_rank(lambda: list(healthy(_on_line(run_dir))))
    try:
        checkpoint = sound(checkpoints)
    except RankError as error:
        raise NoRollback(f"no healthy checkpoint can be read ({error})") from error
    if checkpoint is None:
        raise NoRollback(f"{run_dir} has no healthy checkpoint")
    return checkpoint


def _on_line(run_dir: Path) -> list[Path]:
    """The checkpoints that led to the present step, oldest first, on rank 0.

    The first one may lie in another folder.
    """
    checkpoints = complete(run_dir / "checkpoints")
    origin = last_origin(run_dir)
    if origin is not None and origin.parent != (run_dir / "checkpoints").resolve():
        checkpoints.insert(0, origin)
    return checkpoints
