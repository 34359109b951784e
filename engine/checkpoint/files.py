"""What a checkpoint consists of on the disk, readable without processes and without DeepSpeed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from data.errors import InputError
from data.files import force
from data.hashing import stream_checksum
from engine.distributed.shard_names import BUFFER, SHARD

MANIFEST = "manifest.json"
STATE = "state.json"
BUFFERS = "ema/buffers.safetensors"
LAYOUT = "layout"  # in the header of a file of shards: ``zero.layout`` as JSON
FORMAT = 2

ShardReader = Callable[[int, int], Tensor]  # takes rank and group, gives a flat shard


def complete(root: Path) -> list[Path]:
    """Checkpoints that have a manifest, oldest first."""
    return sorted(file.parent for file in root.glob(f"step-*/{MANIFEST}"))


def newest(run_dir: Path) -> Path | None:
    """The newest complete checkpoint of a run, None if there is none.

    Incomplete ones are named on the standard output.
    """
    root = run_dir / "checkpoints"
    checkpoints = complete(root)
    for folder in sorted(set(root.glob("*step-*")) - set(checkpoints)):
        print(
            f"warning: {folder}: not a complete checkpoint, its saving or deleting was cut short; "
            "ignored",
            flush=True,
        )
    if not checkpoints:
        return None
    return checkpoints[-1]


def manifest(folder: Path) -> dict[str, dict]:
    """Size and checksum of the files that a checkpoint must have, by relative name.

    Raises:
        InputError: There is no manifest, or it has another format.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise InputError(
            f"{folder}: expected a checkpoint with a {MANIFEST}, found none; choose another, "
            "or the newest complete one with --resume auto"
        )
    content = json.loads(file.read_text())
    if content.get("format") != FORMAT:
        raise InputError(
            f"{file}: expected format {FORMAT}, found {content.get('format')}; "
            "read it with the release that wrote it"
        )
    return content["files"]


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON values of a checkpoint.

    Raises:
        InputError: There is no manifest, or the values are damaged.
    """
    verify(folder, manifest(folder), [STATE])
    return json.loads((folder / STATE).read_text())


def verify(folder: Path, files: dict[str, dict], names: list[str]) -> None:
    """Raise InputError at the first file that is not what the manifest says.

    Args:
        folder: A checkpoint.
        files: Its manifest.
        names: The files to look at.
    """
    for name in names:
        file = folder / name
        expected = files[name]
        actual = None
        if file.is_file():
            actual = stamp(file)
        if actual != expected:
            raise InputError(
                f"{file}: expected {_describe(expected)}, found {_describe(actual)}; "
                "the checkpoint is damaged, use an earlier one"
            )


def _describe(entry: dict | None) -> str:
    if entry is None:
        return "no such file"
    return f"{entry['size']} bytes with CRC32C {entry['crc32c']}"


def stamp(file: Path) -> dict:
    """Size and CRC32C of a file, after it has reached the disk."""
    with open(file, "rb") as stream:
        force(stream)
        size, checksum = stream_checksum(stream)
    return {"size": size, "crc32c": f"{checksum:08x}"}


def shard_file(folder: Path, rank: int) -> Path:
    """The file of a rank's part of the teacher."""
    return folder / "ema" / f"rank-{rank:05d}.safetensors"


def full_weights(folder: Path, read_shard: ShardReader | None = None) -> dict[str, Tensor]:
    """The full teacher of a checkpoint in float32, buffers included, in one process.

    Args:
        folder: A checkpoint.
        read_shard: Gives other shards of the same layout than the teacher's, such as the student's
            master weights.

    Returns:
        Tensors by the names of the full model.

    Raises:
        InputError: The checkpoint has another format.
    """
    manifest(folder)
    files = [safe_open(file, "pt") for file in sorted((folder / "ema").glob("rank-*.safetensors"))]

    def read_teacher_shard(rank: int, group: int) -> Tensor:
        return files[rank].get_tensor(f"{SHARD}{group:05d}")

    if read_shard is None:
        read_shard = read_teacher_shard
    state = {}
    for name, tensor in load_file(folder / BUFFERS).items():
        state[name.removeprefix(BUFFER)] = tensor
    for rank, file in enumerate(files):
        layout = json.loads(file.metadata()[LAYOUT])
        for index, group in enumerate(layout):
            # All ranks that share a flat vector describe it. The first of them is enough.
            if group["ranks"][0] == rank:
                flat = torch.cat([read_shard(holder, index) for holder in group["ranks"]])
                state |= _cut(flat, group["parameters"])
    return state


def _cut(flat: Tensor, parameters: list[list]) -> dict[str, Tensor]:
    """The parameters of a flat vector, by name."""
    tensors = {}
    for name, shape, offset in parameters:
        part = flat[offset : offset + math.prod(shape)]
        tensors[name] = part.view(shape).clone()
    return tensors
