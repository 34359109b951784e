"""Saving a run exactly. A checkpoint exists when its manifest does, and the manifest comes last.

checkpoints/step-00000100/
    deepspeed/           DeepSpeed's own files: weights, float32 master weights, Adam moments
    ema/                 the teacher:
        rank-00000.safetensors   a rank's shards, and in the header what lies where in them
        buffers.safetensors      what all ranks have alike
    state.json           step, ranks, ep_size, and the JSON values that the caller added
    <name>.safetensors   tensors that the caller added
    manifest.json        size and CRC32C of every other file, versions
"""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data.errors import InputError
from data.files import force_folder, publish_folder, share, write_durable
from engine.checkpoint.files import (
    BUFFERS,
    FORMAT,
    LAYOUT,
    MANIFEST,
    STATE,
    complete,
    shard_file,
    stamp,
)
from engine.checkpoint.health import last_healthy
from engine.distributed import zero, zero_files
from engine.distributed.collectives import collect, on_first_rank, together
from engine.distributed.shard_names import SHARD
from engine.distributed.teacher import EmaTeacher


def save(
    run_dir: Path,
    step: int,
    *,
    engine: zero.DeepSpeedEngine,
    teacher: EmaTeacher,
    extra: dict[str, Any],
    keep: int,
) -> Path:
    """Publish the state after ``step`` steps, then delete all but the newest ``keep`` checkpoints.

    Everything is written into a hidden folder, which gets its name only when it is complete: a run
    killed at any moment leaves the earlier checkpoints as they were. Every rank must call it.

    Args:
        run_dir: Run folder.
        step: Steps made so far.
        engine: The student's engine.
        teacher: The teacher.
        extra: JSON values or dictionaries of tensors by name, equal on all ranks.
        keep: Number of checkpoints that stay.

    Returns:
        The checkpoint's folder.

    Raises:
        RankError: A rank cannot write; raised on all ranks. Nothing is published or deleted then.
    """
    root = Path(run_dir) / "checkpoints"
    name = f"step-{step:08d}"
    folder = root / name
    hidden = root / f".unfinished-{name}"
    rank, world_size, _ = zero.ranks()
    state = {"step": step, "world_size": world_size, "ep_size": zero.ep_size(engine), **extra}

    on_first_rank(lambda: _start(root, hidden))
    together(lambda: zero_files.save(engine, hidden))
    together(lambda: _write(hidden, rank, teacher, state))
    # What is on the disk counts. So the files are read back, each by one rank.
    names = on_first_rank(lambda: _relative_names(hidden))
    stamps = collect(lambda: _stamps(hidden, names[rank::world_size]))
    on_first_rank(lambda: _publish(hidden, folder, stamps))
    on_first_rank(lambda: _prune(folder, keep))
    return folder


def _start(root: Path, hidden: Path) -> None:
    """Make an empty hidden folder, and delete those that killed runs left."""
    for folder in root.glob(".unfinished-*"):
        shutil.rmtree(folder)
    (hidden / "ema").mkdir(parents=True)


def _write(folder: Path, rank: int, teacher: EmaTeacher, state: dict[str, Any]) -> None:
    """Write this rank's files. Rank 0 also writes what all ranks have alike."""
    shards = {}
    buffers = {}
    for name, tensor in teacher.state().items():
        if name.startswith(SHARD):
            shards[name] = tensor
        else:
            buffers[name] = tensor
    header = {LAYOUT: json.dumps(teacher.layout())}
    _write_tensors(shard_file(folder, rank), shards, header)
    if rank > 0:
        return
    _write_tensors(folder / BUFFERS, buffers)
    values = {}
    for name, value in state.items():
        if _is_tensors(value):
            _write_tensors(folder / f"{name}.safetensors", value)
        else:
            values[name] = value
    write_durable(folder / STATE, json.dumps(values, indent=2))


def _is_tensors(value: Any) -> bool:
    """Whether a value is a dictionary of tensors, and not an empty one."""
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(entry, Tensor) for entry in value.values())


def _write_tensors(
    file: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None
) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, file, header)
        share(file)
    except (OSError, SafetensorError) as error:  # neither of them names the file
        raise InputError(f"{file}: cannot be written ({error})") from error


def _relative_names(folder: Path) -> list[str]:
    """Names of all files below a folder, relative to it, sorted."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _stamps(folder: Path, names: list[str]) -> dict[str, dict]:
    """Size and checksum of some files."""
    return {name: stamp(folder / name) for name in names}


def _publish(hidden: Path, folder: Path, stamps: list[dict[str, dict]]) -> None:
    """Write the manifest, then give the folder its name.

    An earlier checkpoint of the same step is replaced.
    """
    files: dict[str, dict] = {}
    for of_one_rank in stamps:
        files |= of_one_rank
    versions = {name: version(name) for name in ("torch", "deepspeed", "safetensors")}
    versions["python"] = platform.python_version()
    manifest = {"format": FORMAT, "files": files, "versions": versions}
    write_durable(hidden / MANIFEST, json.dumps(manifest, indent=2))
    publish_folder(hidden, folder, aside=hidden.with_name(hidden.name + "-replaced"))
    force_folder(folder.parent)  # the new name itself


def _prune(folder: Path, keep: int) -> None:
    """Delete what is older than the ``keep`` newest checkpoints up to ``folder``.

    The last healthy one stays, however many a diverged run has saved since.

    The manifest goes first, so that a half-deleted checkpoint does not count as one. Later ones, of
    a run that was resumed from an earlier step, stay. A failure costs only space, so it is a
    warning.
    """
    root = folder.parent
    older = [other for other in complete(root) if other.name < folder.name]
    surplus = older[: max(len(older) - keep + 1, 0)]
    healthy = last_healthy([*older, folder])
    if healthy in surplus:
        surplus.remove(healthy)
    for old in [*surplus, *root.glob(".unfinished-*")]:
        try:
            (old / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(old)
        except OSError as error:
            print(f"warning: {old}: cannot be deleted ({error}); delete it by hand", flush=True)
