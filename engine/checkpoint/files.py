"""What a checkpoint consists of on the disk, readable without processes and without DeepSpeed."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from data.errors import InputError
from data.files import force
from data.hashing import stream_checksum
from engine.distributed.shard_names import BUFFER, SHARD

MANIFEST, STATE, BUFFERS = "manifest.json", "state.json", "ema/buffers.safetensors"
LAYOUT = "layout"  # in the header of a file of shards: ``zero.layout`` as JSON
FORMAT = 2


def whole(root: Path) -> list[Path]:
    """Checkpoints that have a manifest, oldest first."""
    return sorted(file.parent for file in root.glob(f"step-*/{MANIFEST}"))


def newest(run_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run, None if there is none; names the others on the standard
    output."""
    root = run_dir / "checkpoints"
    found = whole(root)
    for folder in sorted(set(root.glob("*step-*")) - set(found)):
        print(
            f"warning: {folder}: not a whole checkpoint, its saving or deleting was cut short; passed over",
            flush=True,
        )
    return found[-1] if found else None


def manifest(folder: Path) -> dict[str, dict]:
    """Size and checksum of the files that a checkpoint must have, by relative name. Raises
    InputError without them."""
    file = folder / MANIFEST
    if not file.is_file():
        raise InputError(
            f"{folder}: expected a checkpoint with a {MANIFEST}, found none; choose another, "
            "or the newest whole one with --resume auto"
        )
    content = json.loads(file.read_text())
    if content.get("format") != FORMAT:
        raise InputError(
            f"{file}: expected format {FORMAT}, found {content.get('format')}; "
            "read it with the release that wrote it"
        )
    return content["files"]


def verify(folder: Path, files: dict[str, dict], names: list[str]) -> None:
    """Raise InputError at the first file that is not what the manifest says."""
    for name in names:
        file, expected = folder / name, files[name]
        found = stamp(file) if file.is_file() else None
        if found != expected:
            raise InputError(
                f"{file}: expected {_words(expected)}, found {_words(found)}; the checkpoint is damaged, "
                "use an earlier one"
            )


def _words(entry: dict | None) -> str:
    return f"{entry['size']} bytes with CRC32C {entry['crc32c']}" if entry else "no such file"


def stamp(file: Path) -> dict:
    """Size and CRC32C of a file, after it has reached the disk."""
    with open(file, "rb") as stream:
        force(stream)
        size, checksum = stream_checksum(stream)
    return {"size": size, "crc32c": f"{checksum:08x}"}


def shard_file(folder: Path, rank: int) -> Path:
    """Where a rank's part of the teacher lies."""
    return folder / "ema" / f"rank-{rank:05d}.safetensors"


def whole_weights(
    folder: Path, shard: Callable[[int, int], Tensor] | None = None
) -> dict[str, Tensor]:
    """The whole teacher of a checkpoint in float32, by the names of the whole model, buffers
    included; no processes.

    ``shard(rank, group)`` gives other shards of the same layout than the teacher's, such as the
    student's master weights. Raises InputError for a checkpoint of another format.
    """
    manifest(folder)
    files = [safe_open(file, "pt") for file in sorted((folder / "ema").glob("rank-*.safetensors"))]
    shard = shard or (lambda rank, group: files[rank].get_tensor(f"{SHARD}{group:05d}"))
    state = {
        name.removeprefix(BUFFER): tensor for name, tensor in load_file(folder / BUFFERS).items()
    }
    for rank, file in enumerate(files):
        for index, group in enumerate(json.loads(file.metadata()[LAYOUT])):
            if group["ranks"][0] != rank:
                continue  # the first of the ranks that share a flat vector speaks for all
            flat = torch.cat([shard(other, index) for other in group["ranks"]])
            for name, shape, offset in group["parameters"]:
                state[name] = flat[offset : offset + math.prod(shape)].view(shape).clone()
    return state
