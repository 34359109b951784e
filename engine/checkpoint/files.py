"""What a checkpoint consists of on the disk, readable without processes and without DeepSpeed."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.hashing import stream_checksum

MANIFEST = "manifest.json"
STATE = "state.json"
FORMAT = 3


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return root / f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Steps made before a checkpoint."""
    return int(folder.name.removeprefix("step-"))


def complete(root: Path) -> list[Path]:
    """Checkpoints that have a manifest, oldest first."""
    return sorted(file.parent for file in root.glob(f"step-*/{MANIFEST}"))


def newest(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run whose manifest can be read, None if it has no checkpoint.

    Those that are passed over are named on the standard output.

    Raises:
        InputError: It has checkpoints, and no manifest can be read.
    """
    return first_sound(candidates(run_dir), manifest, print)


def first_sound(
    checkpoints: list[Path], check: Callable[[Path], Any], say: Callable[[str], Any]
) -> Path | None:
    """The first checkpoint that is sound; None if there are none.

    Args:
        checkpoints: Newest first.
        check: Raises ValueError with one line for a checkpoint that is not sound.
        say: Is given a warning for each that is passed over.

    Raises:
        ValueError: None is sound; the line of the last one.
    """
    for folder in checkpoints:
        try:
            check(folder)
        except ValueError as error:
            if folder == checkpoints[-1]:
                raise
            say(f"warning: {error}; looking for an earlier one")
        else:
            return folder
    return None


def candidates(run_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, newest first. The others are named on the standard output."""
    root = run_dir / "checkpoints"
    checkpoints = complete(root)
    for folder in sorted(set(root.glob("*step-*")) - set(checkpoints)):
        print(
            f"warning: {folder}: not a complete checkpoint, its saving or deleting was cut short; "
            "ignored",
            flush=True,
        )
    return checkpoints[::-1]


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
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(
            f"{file}: expected JSON, found something else ({error}); "
            "the checkpoint is damaged, use an earlier one"
        ) from error
    if content.get("format") != FORMAT:
        raise InputError(
            f"{file}: expected format {FORMAT}, found {content.get('format')}; export its weights "
            "with the release that wrote it, and start a new run from them (skysense.init.path)"
        )
    return content["files"]


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON values of a checkpoint.

    Raises:
        InputError: There is no manifest, or the values are damaged.
    """
    verify(folder, manifest(folder), [STATE])
    return json.loads((folder / STATE).read_text())


def verify(folder: Path, files: dict[str, dict], names: Iterable[str]) -> None:
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
    """Size and CRC32C of a file."""
    with open(file, "rb") as stream:
        size, checksum = stream_checksum(stream)
    return {"size": size, "crc32c": f"{checksum:08x}"}


def tensors_file(folder: Path, name: str) -> Path:
    """The file of tensors that all ranks have alike."""
    return folder / f"{name}.safetensors"
