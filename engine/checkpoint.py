"""Saving and restoring a run exactly. A checkpoint exists when its manifest does, and the manifest comes last.

    checkpoints/step-00000100/
      deepspeed/        weights, float32 master weights, Adam moments: DeepSpeed's own files
      ema/              the teacher: rank-00000.safetensors ... with its shards, buffers.safetensors
      state.json        step, ranks, ep_size and what the caller added; its tensors in <name>.safetensors
      manifest.json     size and CRC32C of every other file, versions
"""

import json
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import google_crc32c
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine import zero
from engine.collectives import collect, on_first_rank, together
from engine.teacher import SHARD, EmaTeacher

MANIFEST, STATE, BUFFERS = "manifest.json", "state.json", "ema/buffers.safetensors"
FORMAT = 1
_CHUNK = 2**24  # bytes read at once


def save(run_dir: Path, step: int, engine, teacher: EmaTeacher, extra: dict, keep: int,
         write: Callable[[Path], None] | None = None) -> Path:
    """Publish the state after ``step`` steps, then delete all but the newest ``keep`` checkpoints.

    Everything is written into a hidden folder, which gets its name only when it is whole: a run killed at any moment
    leaves the earlier checkpoints as they were. Every rank must call it.

    Args:
        extra: named JSON values or dictionaries of tensors, equal on all ranks.
        write: called on every rank with the unfinished folder to add files of its own; no collectives inside.

    Raises:
        RankError: on all ranks, if one of them cannot write; nothing is published or deleted then.
    """
    root = Path(run_dir) / "checkpoints"
    folder, hidden = root / _name(step), root / f".unfinished-{_name(step)}"
    rank, world, _ = zero.ranks()
    state = {"step": step, "world_size": world, "ep_size": zero.ep_size(engine), **extra}

    on_first_rank(lambda: _start(root, hidden))
    together(lambda: zero.save_checkpoint(engine, hidden))
    together(lambda: _write(hidden, rank, teacher.state(), state, write))
    # what is on the disk counts, so the files are read back, each by one rank
    names = on_first_rank(lambda: sorted(_files(hidden)))
    parts = collect(lambda: {name: _entry(hidden / name) for name in names[rank::world]})
    on_first_rank(lambda: _publish(hidden, folder, {name: entry for part in parts for name, entry in part.items()}))
    on_first_rank(lambda: _prune(folder, keep))
    return folder


def latest(run_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run, None if there is none. Rank 0 looks, all ranks hear the same.

    A folder without a manifest is no checkpoint; it is named on the standard output and passed over.
    """
    return on_first_rank(lambda: _latest(Path(run_dir) / "checkpoints"))


def load(folder: Path, engine, teacher: EmaTeacher) -> dict:
    """Put a checkpoint's state into the engine and the teacher and return state.json, the caller's tensors included.

    Every rank must call it, with as many ranks and the ``ep_size`` it was saved with.
    Raises RankError on all ranks, and changes nothing, when a file is missing or damaged or the ranks do not fit.
    """
    folder = Path(folder)
    rank, world, _ = zero.ranks()
    files = on_first_rank(lambda: _manifest(folder))
    on_first_rank(lambda: _verify(folder, files, [STATE]))
    state = on_first_rank(lambda: json.loads((folder / STATE).read_text()))
    together(lambda: _require_ranks(folder, state, world, zero.ep_size(engine)))
    together(lambda: _verify(folder, files, sorted(files)[rank::world]))

    together(lambda: zero.load_checkpoint(engine, folder))
    tensors, added = together(lambda: _read(folder, rank))
    teacher.load_state(tensors)
    return state | added


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _start(root: Path, hidden: Path) -> None:
    """An empty hidden folder, and none of those that killed runs left."""
    for left in root.glob(".unfinished-*"):
        shutil.rmtree(left)
    (hidden / "ema").mkdir(parents=True)


def _write(folder: Path, rank: int, tensors: dict[str, Tensor], state: dict, write) -> None:
    """This rank's files; rank 0 also writes what all ranks have alike."""
    shards = {name: tensor for name, tensor in tensors.items() if name.startswith(SHARD)}
    _save(shards, _shard_file(folder, rank))
    if rank == 0:
        _save({name: tensor for name, tensor in tensors.items() if name not in shards}, folder / BUFFERS)
        values = {}
        for name, value in state.items():
            if isinstance(value, dict) and value and all(isinstance(x, Tensor) for x in value.values()):
                _save(value, folder / f"{name}.safetensors")
            else:
                values[name] = value
        _write_json(folder / STATE, values)
    if write is not None:
        write(folder)


def _read(folder: Path, rank: int) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The teacher's tensors of this rank, and the caller's by name."""
    teacher = load_file(_shard_file(folder, rank)) | load_file(folder / BUFFERS)
    return teacher, {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}


def _shard_file(folder: Path, rank: int) -> Path:
    return folder / "ema" / f"rank-{rank:05d}.safetensors"


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)
    except (OSError, SafetensorError) as error:  # neither of them names the file
        raise OSError(f"{file}: cannot be written ({error})") from error


def _write_json(file: Path, value: dict) -> None:
    """Write and wait until it is on the disk."""
    with open(file, "w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())


def _files(folder: Path) -> list[str]:
    """Relative names of all files below a folder."""
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]


def _entry(file: Path) -> dict:
    """Size and CRC32C of a file, after it has reached the disk."""
    size, checksum = 0, google_crc32c.Checksum()
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            checksum.update(chunk)
    return {"size": size, "crc32c": checksum.hexdigest().decode()}


def _publish(hidden: Path, folder: Path, files: dict[str, dict]) -> None:
    """Manifest, then the name. A checkpoint of the same step from before gives way."""
    versions = {name: version(name) for name in ("torch", "deepspeed", "safetensors")}
    _write_json(hidden / MANIFEST, {"format": FORMAT, "files": files,
                                    "versions": versions | {"python": platform.python_version()}})
    if folder.exists():
        folder.rename(hidden.with_name(hidden.name + "-replaced"))
    hidden.rename(folder)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name itself
    finally:
        os.close(descriptor)


def _whole(root: Path) -> list[Path]:
    """Checkpoints that have a manifest, oldest first."""
    return sorted(file.parent for file in root.glob(f"step-*/{MANIFEST}"))


def _prune(folder: Path, keep: int) -> None:
    """Delete what is older than the ``keep`` newest up to ``folder``, the manifest first: half a checkpoint is none.

    Later ones, of a run that was taken up from an earlier step, stay. Trouble here costs only space.
    """
    root = folder.parent
    older = [other for other in _whole(root) if other.name < folder.name]
    for old in older[:max(len(older) - keep + 1, 0)] + list(root.glob(".unfinished-*")):
        try:
            (old / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(old)
        except OSError as error:
            print(f"warning: {old}: cannot be deleted ({error}); delete it by hand", flush=True)


def _latest(root: Path) -> Path | None:
    whole = _whole(root)
    for folder in sorted(set(root.glob("*step-*")) - set(whole)):
        print(f"warning: {folder}: not a whole checkpoint, its saving or deleting was cut short; passed over",
              flush=True)
    return whole[-1] if whole else None


def _manifest(folder: Path) -> dict[str, dict]:
    """Files that a checkpoint must have, by relative name."""
    file = folder / MANIFEST
    if not file.is_file():
        raise ValueError(f"{folder}: expected a checkpoint with a {MANIFEST}, found none; choose another, "
                         "or the newest whole one with --resume auto")
    manifest = json.loads(file.read_text())
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{file}: expected format {FORMAT}, found {manifest.get('format')}; "
                         "read it with the release that wrote it")
    return manifest["files"]


def _verify(folder: Path, files: dict[str, dict], names: list[str]) -> None:
    """Raise ValueError at the first file that is not what the manifest says."""
    for name in names:
        file, expected = folder / name, files[name]
        found = _entry(file) if file.is_file() else None
        if found != expected:
            raise ValueError(f"{file}: expected {_words(expected)}, found {_words(found)}; the checkpoint is damaged, "
                             "use an earlier one")


def _words(entry: dict | None) -> str:
    return f"{entry['size']} bytes with CRC32C {entry['crc32c']}" if entry else "no such file"


def _require_ranks(folder: Path, state: dict, world: int, ep_size: int) -> None:
    """Raise ValueError if the checkpoint was saved by another number of ranks or another ``ep_size``."""
    for name, here in (("world_size", world), ("ep_size", ep_size)):
        if state[name] != here:
            raise ValueError(f"{folder}: expected {name} {here} (this run), found {state[name]} (the checkpoint); "
                             f"start with {name} {state[name]}")
