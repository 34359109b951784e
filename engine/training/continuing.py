"""What of a run goes into a checkpoint beside weights and moments, and how a run takes it back."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint.files import candidates, read_state
from engine.checkpoint.load import latest, load, sound
from engine.config.continued import changes, refusal
from engine.distributed.collectives import on_first_rank, together
from engine.errors import ConfigError
from engine.pretrained.sensors import other_inputs, sensor_facts
from engine.resilience.lease import last_origin
from engine.training import rollback
from engine.training.assemble import Run
from engine.training.rollback import Rollback

_SAME_CLASSES = 1e-3  # largest difference between class embeddings of two machines


@dataclass(frozen=True)
class Origin:
    """Where a run goes on.

    Attributes:
        checkpoint: its folder.
        rollback: that leads there; None if the run goes on behind the checkpoint's own samples.
    """

    checkpoint: Path
    rollback: Rollback | None = None


def own_state(run: Run, done: int, *, attempt: int) -> dict[str, Any]:
    """JSON values and dictionaries of tensors, by name, for ``engine.checkpoint.save.Saver``.

    Args:
        run: The run.
        done: Steps made.
        attempt: Number of the attempt that made the last of them.
    """
    objective = run.step.objective
    parent = None
    if run.parent is not None:
        parent = str(run.parent)
    return {
        "attempt": attempt,
        "parent": parent,
        "config": run.config.complete(),
        "fingerprint": run.dataset.fingerprint,
        "samples": run.samples_before(done),
        "rollbacks": run.rollbacks,
        "model": asdict(run.settings.model),
        "regions": run.dataset.regions.to_json(),
        "sensors": sensor_facts(run.settings.model.modalities),
        "centres": objective.state(),
        "text": {"classes": objective.text},
    }


def find_origin(run_dir: Path, resume: str | None) -> Origin | None:
    """Where to continue; None to start anew. Every rank must call it.

    With "auto" it is the last checkpoint that was written. A run that has saved nothing since it
    continued from a checkpoint of another folder goes back to that one. One that has saved nothing
    since it rolled back does so again.

    Raises:
        ConfigError: A new run would start in the folder of another.
        RankError: All checkpoints are damaged.
    """
    newest = latest(run_dir)
    if resume is None and newest is not None:
        raise ConfigError(
            f"{run_dir}: holds checkpoints of an earlier run; continue it with --resume, "
            "or choose another --run_dir"
        )
    if resume is None:
        return None
    if resume != "auto":
        return Origin(Path(resume))
    pending = on_first_rank(lambda: _pending(run_dir, newest))
    if pending is not None:
        return Origin(_rolled_back_to(run_dir, pending), pending)
    checkpoint = newest or on_first_rank(lambda: last_origin(run_dir))
    if checkpoint is None:
        return None
    return Origin(checkpoint)


def _pending(run_dir: Path, newest: Path | None) -> Rollback | None:
    """The last rollback of a run if no checkpoint was written behind it, else None."""
    rollbacks = rollback.read(run_dir)
    if not rollbacks:
        return None
    if newest is not None and read_state(newest).get("rollbacks", 0) >= rollbacks[-1].number:
        return None
    return rollbacks[-1]


def _rolled_back_to(run_dir: Path, pending: Rollback) -> Path:
    """The checkpoint of a rollback, or if it is damaged since then, the one before."""
    target = pending.folder(run_dir)

    def up_to_it() -> list[Path]:
        return [folder for folder in candidates(run_dir) if folder.name <= target.name]

    return sound(on_first_rank(up_to_it)) or target


def restore(run: Run, origin: Origin) -> None:
    """Load a checkpoint, and set where the run goes on. Every rank must call it.

    The run may have made steps; nothing of them stays.

    Raises:
        RankError: The checkpoint is damaged or another run's, or this run changes a setting that it
            cannot take; raised on all ranks. The run cannot go on then.
    """
    folder = origin.checkpoint
    saved = on_first_rank(lambda: read_state(folder))
    together(lambda: _check(run, folder, saved))
    run.step.ema.wait()
    state = load(folder, run.step.engine, run.step.ema)
    together(lambda: _check_classes(run, folder, state["text"]["classes"]))
    run.step.objective.load_state(state["centres"])
    run.start = state["step"]
    run.samples = state["samples"]
    run.rollbacks = state.get("rollbacks", 0)  # checkpoints of an earlier release do not say
    run.parent = folder
    run.guard = state["guard"]
    if origin.rollback is not None:
        run.samples = origin.rollback.next_sample
        run.rollbacks = origin.rollback.number
    if run.rank == 0:
        print(f"continuing from {folder} at step {run.start}", flush=True)
        if origin.rollback is not None:
            print(f"behind rollback {run.rollbacks}: with sample {run.samples}", flush=True)
        for place, change in changes(saved["config"], run.config.complete()).items():
            print(f"changed since then: {place} {change.saved} -> {change.now}", flush=True)


def _check(run: Run, folder: Path, saved: dict[str, Any]) -> None:
    """Compare a checkpoint's values with the run.

    Raises:
        ConfigError: The checkpoint belongs to other data or other statistics of a sensor, or a
            setting was changed that may not change.
    """
    problem = refusal(changes(saved["config"], run.config.complete()))
    if problem is not None:
        raise ConfigError(f"{folder}: {problem}")
    if saved["fingerprint"] != run.dataset.fingerprint:
        raise ConfigError(
            f"{folder}: saved with the dataset {saved['fingerprint']}, {run.dataset.path} is "
            f"{run.dataset.fingerprint}; a run goes on with its own data only"
        )
    for line in other_inputs(saved["sensors"]):
        raise ConfigError(f"{folder}: {line}; a run goes on with its own skysense.data.sensors")


def _check_classes(run: Run, folder: Path, saved: torch.Tensor) -> None:
    """Raise ConfigError if the class embeddings (K D) are not those of the checkpoint."""
    own = run.step.objective.text
    if own.shape != saved.shape or not torch.allclose(own.cpu(), saved, rtol=0, atol=_SAME_CLASSES):
        raise ConfigError(
            f"{folder}: skysense.text.weights: expected the weights that gave the checkpoint's "
            f"class embeddings, found others ({run.settings.text.weights}); set them back"
        )
