"""Taking up a checkpoint: every file is checked before anything of the run changes."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoint.files import BUFFERS, STATE, manifest, newest, shard_file, verify
from engine.distributed import zero
from engine.distributed.collectives import on_first_rank, together
from engine.distributed.teacher import EmaTeacher
from engine.errors import ConfigError


def latest(run_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run, None if there is none. Rank 0 looks, all ranks hear the
    same.

    A folder without a manifest is no checkpoint; it is named on the standard output and passed
    over.
    """
    return on_first_rank(lambda: newest(Path(run_dir)))


def load(folder: Path, engine, teacher: EmaTeacher) -> dict:
    """Put a checkpoint's state into the engine and the teacher and return state.json, the caller's
    tensors included.

    Every rank must call it, with as many ranks and the ``ep_size`` it was saved with. Raises
    RankError on all ranks, and changes nothing, when a file is missing or damaged or the ranks do
    not fit.
    """
    folder = Path(folder)
    rank, world, _ = zero.ranks()
    files = on_first_rank(lambda: manifest(folder))
    on_first_rank(lambda: verify(folder, files, [STATE]))
    state = on_first_rank(lambda: json.loads((folder / STATE).read_text()))
    together(lambda: _require_ranks(folder, state, world, zero.ep_size(engine)))
    together(lambda: verify(folder, files, sorted(files)[rank::world]))

    together(lambda: zero.load_checkpoint(engine, folder))
    tensors, added = together(lambda: _read(folder, rank))
    teacher.load_state(tensors)
    return state | added


def _read(folder: Path, rank: int) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The teacher's tensors of this rank, and the caller's by name."""
    teacher = load_file(shard_file(folder, rank)) | load_file(folder / BUFFERS)
    return teacher, {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}


def _require_ranks(folder: Path, state: dict, world: int, ep_size: int) -> None:
    """Raise ConfigError if the checkpoint was saved by another number of ranks or another
    ``ep_size``."""
    for name, here in (("world_size", world), ("ep_size", ep_size)):
        if state[name] != here:
            raise ConfigError(
                f"{folder}: expected {name} {here} (this run), found {state[name]} (the checkpoint); "
                f"start with {name} {state[name]}"
            )
