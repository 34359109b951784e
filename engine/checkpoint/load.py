"""Resuming from a checkpoint: every file is checked before anything of the run changes."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoint.files import BUFFERS, STATE, manifest, newest, shard_file, verify
from engine.distributed import zero, zero_files
from engine.distributed.collectives import on_first_rank, together
from engine.distributed.teacher import EmaTeacher
from engine.errors import ConfigError


def latest(run_dir: Path) -> Path | None:
    """The newest complete checkpoint of a run, None if there is none.

    Rank 0 looks, and all ranks get the same answer. A folder without a manifest is no checkpoint;
    it is named on the standard output and ignored.
    """
    return on_first_rank(lambda: newest(Path(run_dir)))


def load(folder: Path, engine: zero.DeepSpeedEngine, teacher: EmaTeacher) -> dict[str, Any]:
    """Put a checkpoint's state into the engine and the teacher.

    Every rank must call it, with as many ranks and the ``ep_size`` it was saved with.

    Returns:
        The content of state.json, and the tensors that the caller of ``save`` added.

    Raises:
        RankError: A file is missing or damaged, or the ranks do not fit; raised on all ranks,
            before anything has changed.
    """
    folder = Path(folder)
    rank, world_size, _ = zero.ranks()
    files = on_first_rank(lambda: manifest(folder))
    on_first_rank(lambda: verify(folder, files, [STATE]))
    state = on_first_rank(lambda: json.loads((folder / STATE).read_text()))
    together(lambda: _require_equal(folder, state, "world_size", world_size))
    together(lambda: _require_equal(folder, state, "ep_size", zero.ep_size(engine)))
    together(lambda: verify(folder, files, sorted(files)[rank::world_size]))

    together(lambda: zero_files.load(engine, folder))
    tensors = together(lambda: _teacher_tensors(folder, rank))
    added = together(lambda: _added_tensors(folder))
    teacher.load_state(tensors)
    return state | added


def _teacher_tensors(folder: Path, rank: int) -> dict[str, Tensor]:
    """The teacher's tensors of this rank."""
    return load_file(shard_file(folder, rank)) | load_file(folder / BUFFERS)


def _added_tensors(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors that the caller of ``save`` added, by name."""
    return {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}


def _require_equal(folder: Path, state: dict[str, Any], name: str, of_this_run: int) -> None:
    """Raise ConfigError if the checkpoint was saved with another value."""
    saved = state[name]
    if saved != of_this_run:
        raise ConfigError(
            f"{folder}: expected {name} {of_this_run} (this run), found {saved} (the checkpoint); "
            f"start with {name} {saved}"
        )
