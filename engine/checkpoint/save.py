"""Saving a run exactly. A checkpoint exists when its manifest does, and the manifest comes last.

checkpoints/step-00000100/ deepspeed/        weights, float32 master weights, Adam moments:
  DeepSpeed's own files ema/              the teacher: rank-00000.safetensors ... with its shards
  and, in the header, what lies where in
                    them; buffers.safetensors
  state.json        step, ranks, ep_size and what the caller added; its tensors in
  <name>.safetensors manifest.json     size and CRC32C of every other file, versions
"""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data.files import force_folder, publish_folder, write_durable
from engine.checkpoint.files import (
    BUFFERS,
    FORMAT,
    LAYOUT,
    MANIFEST,
    STATE,
    shard_file,
    stamp,
    whole,
)
from engine.distributed import zero
from engine.distributed.collectives import collect, on_first_rank, together
from engine.distributed.shard_names import SHARD
from engine.distributed.teacher import EmaTeacher


def save(run_dir: Path, step: int, engine, teacher: EmaTeacher, extra: dict, keep: int) -> Path:
    """Publish the state after ``step`` steps, then delete all but the newest ``keep`` checkpoints.

    Everything is written into a hidden folder, which gets its name only when it is whole: a run
    killed at any moment leaves the earlier checkpoints as they were. Every rank must call it.

    Args:
        extra: named JSON values or dictionaries of tensors, equal on all ranks.

    Raises:
        RankError: on all ranks, if one of them cannot write; nothing is published or deleted then.
    """
    root = Path(run_dir) / "checkpoints"
    folder, hidden = root / _name(step), root / f".unfinished-{_name(step)}"
    rank, world, _ = zero.ranks()
    state = {"step": step, "world_size": world, "ep_size": zero.ep_size(engine), **extra}

    on_first_rank(lambda: _start(root, hidden))
    together(lambda: zero.save_checkpoint(engine, hidden))
    together(lambda: _write(hidden, rank, teacher, state))
    # what is on the disk counts, so the files are read back, each by one rank
    names = on_first_rank(lambda: sorted(_files(hidden)))
    parts = collect(lambda: {name: stamp(hidden / name) for name in names[rank::world]})
    on_first_rank(
        lambda: _publish(
            hidden, folder, {name: entry for part in parts for name, entry in part.items()}
        )
    )
    on_first_rank(lambda: _prune(folder, keep))
    return folder


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _start(root: Path, hidden: Path) -> None:
    """An empty hidden folder, and none of those that killed runs left."""
    for left in root.glob(".unfinished-*"):
        shutil.rmtree(left)
    (hidden / "ema").mkdir(parents=True)


def _write(folder: Path, rank: int, teacher: EmaTeacher, state: dict) -> None:
    """This rank's files; rank 0 also writes what all ranks have alike."""
    tensors = teacher.state()
    shards = {name: tensor for name, tensor in tensors.items() if name.startswith(SHARD)}
    _save(shards, shard_file(folder, rank), {LAYOUT: json.dumps(teacher.layout())})
    if rank == 0:
        _save(
            {name: tensor for name, tensor in tensors.items() if name not in shards},
            folder / BUFFERS,
        )
        values = {}
        for name, value in state.items():
            if (
                isinstance(value, dict)
                and value
                and all(isinstance(x, Tensor) for x in value.values())
            ):
                _save(value, folder / f"{name}.safetensors")
            else:
                values[name] = value
        _write_json(folder / STATE, values)


def _save(tensors: dict[str, Tensor], file: Path, header: dict[str, str] | None = None) -> None:
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            file,
            header,
        )
    except (OSError, SafetensorError) as error:  # neither of them names the file
        raise OSError(f"{file}: cannot be written ({error})") from error


def _write_json(file: Path, value: dict) -> None:
    """Write and wait until it is on the disk."""
    write_durable(file, json.dumps(value, indent=2))


def _files(folder: Path) -> list[str]:
    """Relative names of all files below a folder."""
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]


def _publish(hidden: Path, folder: Path, files: dict[str, dict]) -> None:
    """Manifest, then the name. A checkpoint of the same step from before gives way."""
    versions = {name: version(name) for name in ("torch", "deepspeed", "safetensors")}
    _write_json(
        hidden / MANIFEST,
        {
            "format": FORMAT,
            "files": files,
            "versions": versions | {"python": platform.python_version()},
        },
    )
    publish_folder(hidden, folder, aside=hidden.with_name(hidden.name + "-replaced"))
    force_folder(folder.parent)  # the new name itself


def _prune(folder: Path, keep: int) -> None:
    """Delete what is older than the ``keep`` newest up to ``folder``, the manifest first: half a
    checkpoint is none.

    Later ones, of a run that was taken up from an earlier step, stay. Trouble here costs only
    space.
    """
    root = folder.parent
    older = [other for other in whole(root) if other.name < folder.name]
    for old in older[: max(len(older) - keep + 1, 0)] + list(root.glob(".unfinished-*")):
        try:
            (old / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(old)
        except OSError as error:
            print(f"warning: {old}: cannot be deleted ({error}); delete it by hand", flush=True)
