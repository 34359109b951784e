"""Resuming from a checkpoint: every file is checked before anything of the run changes.

The run may have other ranks, another ``ep_size`` or other parameter groups than the one that saved.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from data.errors import InputError
from engine.checkpoint.buffers import BUFFERS, buffers
from engine.checkpoint.families import (
    Move,
    count_elements,
    count_files,
    find_places,
    plan,
    read_layout,
    read_shards,
)
from engine.checkpoint.files import STATE, candidates, first_sound, manifest, verify
from engine.distributed import zero, zero_state
from engine.distributed.collectives import collect, on_first_rank, share_of, together
from engine.distributed.pieces import EMA, MASTER, MOMENTS, Layout
from engine.distributed.teacher import EmaTeacher


def latest(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run whose files are what its manifest says; None if it has none.

    Arguments and errors are those of ``sound``.
    """
    return sound(on_first_rank(lambda: candidates(Path(run_dir))))


def sound(checkpoints: list[Path]) -> Path | None:
    """The first of some checkpoints whose files are what its manifest says; None if there are none.

    Every rank must call it; each looks at some of the files. A checkpoint that is passed over is
    named on the standard output.

    Args:
        checkpoints: Newest first; the same on all ranks.

    Raises:
        RankError: There are checkpoints, and all of them are damaged or of another format.
    """
    return first_sound(checkpoints, verify_together, _say)


def _say(line: str) -> None:
    on_first_rank(lambda: print(line, flush=True))


def verify_together(folder: Path) -> None:
    """Compare all files of a checkpoint with its manifest; every rank must call it.

    Raises:
        RankError: A file is missing or damaged; raised on all ranks.
    """
    files = on_first_rank(lambda: manifest(folder))
    own = share_of(sorted(files))
    together(lambda: verify(folder, files, own))


def load(folder: Path, engine: zero.DeepSpeedEngine, teacher: EmaTeacher) -> dict[str, Any]:
    """Put a checkpoint's state into the engine and the teacher. Every rank must call it.

    The optimizer's settings stay this run's.

    Returns:
        The content of state.json, and the tensors that the caller of ``save`` added.

    Raises:
        RankError: A file is missing or damaged, or the model is another one; raised on all ranks,
            before anything has changed.
    """
    folder = Path(folder)
    verify_together(folder)
    state = on_first_rank(lambda: json.loads((folder / STATE).read_text()))
    added = together(lambda: _added_tensors(folder))

    wanted = zero_state.layout(engine)
    saved = _saved_layouts(folder)
    moves = together(lambda: plan(find_places(saved), wanted, folder))
    elements = sum(collect(lambda: count_elements([wanted])))
    together(lambda: _require_equal(folder, "elements", count_elements(saved), elements))
    live = buffers(engine.module, teacher.module)
    loaded = added.pop(BUFFERS)
    together(lambda: _require_equal(folder, "buffers", _shapes(loaded), _shapes(live)))

    # Those of Adam are live if it has made steps: a run that goes back needs no second place.
    shards = {**zero_state.shards(engine), EMA: teacher.shards}
    together(lambda: _read(folder, moves, shards))
    moments = {name: shards[name] for name in MOMENTS}
    zero_state.put_moments(engine, moments, steps=state["optimizer_steps"])
    zero_state.count_steps(engine, state["step"])
    for name, buffer in live.items():
        buffer.copy_(loaded[name])
    zero_state.show_weights(engine)
    teacher.show()
    return state | added


def _added_tensors(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors that all ranks have alike, by the name of their file."""
    return {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}


def _saved_layouts(folder: Path) -> list[Layout]:
    """The layouts of all ranks that saved; each rank of this run reads some."""
    count = on_first_rank(lambda: count_files(folder, MASTER))
    own = share_of(range(count))

    def read() -> dict[int, Layout]:
        return {saved: read_layout(folder, MASTER, saved) for saved in own}

    layouts: dict[int, Layout] = {}
    for of_one_rank in collect(read):
        layouts |= of_one_rank
    return [layouts[saved] for saved in range(count)]


def _require_equal(folder: Path, name: str, saved: Any, of_this_run: Any) -> None:
    """Raise InputError if the checkpoint holds something else."""
    if saved != of_this_run:
        raise InputError(
            f"{folder}: expected {name} {of_this_run} (this run), found {saved} (the checkpoint); "
            "the checkpoint is of another model"
        )


def _shapes(tensors: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _read(folder: Path, moves: list[Move], shards: dict[str, list[Tensor]]) -> None:
    """Read all families into this rank's shards."""
    for family, of_family in shards.items():
        read_shards(folder, family, moves, of_family)
