"""What a rank has to leave in a checkpoint: live tensors, and how they are written."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from data.files import write_durable
from engine.checkpoint.buffers import BUFFERS, buffers
from engine.checkpoint.families import family_file, write_shards
from engine.checkpoint.files import STATE, stamp, tensors_file
from engine.checkpoint.tensor_file import unwritable, write_tensors
from engine.distributed import zero, zero_state
from engine.distributed.pieces import EMA, Layout
from engine.distributed.teacher import EmaTeacher

Stamps = dict[str, dict]  # size and checksum of files, by name inside the checkpoint


@dataclass(frozen=True)
class State:
    """The state of a run after some steps, as one rank holds it."""

    shards: dict[str, list[Tensor]]  # of each family, a flat vector for each parameter group
    layout: Layout  # of the shards
    # Equal on all ranks, by the name of their file; only rank 0 has them here.
    tensors: dict[str, dict[str, Tensor]]
    values: dict[str, Any]  # JSON, equal on all ranks

    def map(self, change: Callable[[str, Tensor], Tensor]) -> "State":
        """The same state with each tensor changed, given a name of its own and the tensor."""
        shards = {}
        for family, of_family in self.shards.items():
            changed = []
            for group, shard in enumerate(of_family):
                changed.append(change(f"{family}/{group}", shard))
            shards[family] = changed
        tensors: dict[str, dict[str, Tensor]] = {}
        for file, in_file in self.tensors.items():
            tensors[file] = {name: change(f"{file}/{name}", x) for name, x in in_file.items()}
        return replace(self, shards=shards, tensors=tensors)


def run_state(
    step: int, engine: zero.DeepSpeedEngine, teacher: EmaTeacher, extra: dict[str, Any]
) -> State:
    """The state of a run, in live tensors.

    Args:
        step: Steps made so far.
        engine: The student's engine.
        teacher: The teacher.
        extra: What the caller adds: JSON values, or dictionaries of tensors, by name.
    """
    tensors: dict[str, dict[str, Tensor]] = {BUFFERS: buffers(engine.module, teacher.module)}
    tensors |= {name: value for name, value in extra.items() if _is_tensors(value)}
    values = {name: value for name, value in extra.items() if name not in tensors}
    if zero.ranks().rank > 0:  # rank 0 alone writes what all ranks have alike
        tensors = {}
    return State(
        shards={**zero_state.shards(engine), EMA: teacher.shards},
        layout=zero_state.layout(engine),
        tensors=tensors,
        values={
            "step": step,
            "world_size": zero.ranks().world_size,
            "ep_size": zero.ep_size(engine),
            "optimizer_steps": zero_state.steps(engine),
            **values,
        },
    )


def _is_tensors(value: Any) -> bool:
    """Whether a value is a dictionary of tensors, and not an empty one."""
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(entry, Tensor) for entry in value.values())


def write_state(state: State, folder: Path, rank: int) -> Stamps:
    """Write this rank's files of a checkpoint; rank 0 also writes what all ranks have alike.

    Args:
        state: The state.
        folder: It has a folder for each family.
        rank: This rank.

    Raises:
        InputError: A file cannot be written.
    """
    stamps = {}
    for family, shards in state.shards.items():
        file = family_file(folder, family, rank)
        stamps[file] = write_shards(file, shards, state.layout)
    for name, tensors in state.tensors.items():
        file = tensors_file(folder, name)
        stamps[file] = write_tensors(file, tensors)
    if rank == 0:
        stamps[folder / STATE] = write_json(folder / STATE, state.values)
    return {str(file.relative_to(folder)): entry for file, entry in stamps.items()}


def write_json(file: Path, content: dict[str, Any]) -> dict:
    """Write an object and force it to the disk; size and checksum of the file.

    Raises:
        InputError: It cannot be written.
    """
    try:
        write_durable(file, json.dumps(content, indent=2))
    except OSError as error:
        raise unwritable(file, error) from error
    return stamp(file)
