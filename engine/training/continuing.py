"""What of a run goes into a checkpoint beside weights and moments, and how a run takes it back."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from engine.checkpoint.files import read_state
from engine.checkpoint.load import latest, load
from engine.config.continued import changes, refusal
from engine.distributed.collectives import on_first_rank, together
from engine.errors import ConfigError
from engine.pretrained.sensors import other_inputs, sensor_facts
from engine.resilience.lease import last_origin
from engine.training.assemble import Run

_SAME_CLASSES = 1e-3  # largest difference between class embeddings of two machines


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
        "model": asdict(run.settings.model),
        "regions": run.dataset.regions.to_json(),
        "sensors": sensor_facts(run.settings.model.modalities),
        "centres": objective.state(),
        "text": {"classes": objective.text},
    }


def checkpoint_to_resume(run_dir: Path, resume: str | None) -> Path | None:
    """The checkpoint's folder to continue from; None to start anew.

    With "auto" it is the last one that was written. A run that has saved nothing since it continued
    from a checkpoint of another folder goes back to that one.

    Raises:
        ConfigError: A new run would start in the folder of another.
    """
    newest = latest(run_dir)
    if resume is None and newest is not None:
        raise ConfigError(
            f"{run_dir}: holds checkpoints of an earlier run; continue it with --resume, "
            "or choose another --run_dir"
        )
    if resume is None:
        return None
    if resume == "auto":
        return newest or on_first_rank(lambda: last_origin(run_dir))
    return Path(resume)


def restore(run: Run, folder: Path) -> None:
    """Load a checkpoint, and set where the run goes on. Every rank must call it.

    Raises:
        RankError: The checkpoint is damaged or another run's, or this run changes a setting that it
            cannot take; raised on all ranks. The run cannot go on then.
    """
    saved = on_first_rank(lambda: read_state(folder))
    together(lambda: _check(run, folder, saved))
    state = load(folder, run.step.engine, run.step.ema)
    together(lambda: _check_classes(run, folder, state["text"]["classes"]))
    run.step.objective.load_state(state["centres"])
    run.start = state["step"]
    run.samples = state["samples"]
    run.parent = folder
    run.guard = state["guard"]
    if run.rank == 0:
        print(f"continuing from {folder} at step {run.start}", flush=True)
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
