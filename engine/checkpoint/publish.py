"""A checkpoint's folder: hidden while it is written, named when it is complete.

Only rank 0 does this, while the others wait.
"""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from data.files import force_folder, publish_folder
from engine.checkpoint.files import FORMAT, MANIFEST
from engine.checkpoint.state import Stamps, write_json
from engine.checkpoint.tensor_file import unwritable
from engine.distributed.pieces import FAMILIES

_HIDDEN = ".unfinished-"  # begins the name of a folder that is being written


def hidden_folder(folder: Path) -> Path:
    """Where a checkpoint is written before it lies at ``folder``."""
    return folder.with_name(_HIDDEN + folder.name)


def begin(folder: Path) -> None:
    """Make the hidden folder of a checkpoint, and delete those that killed runs left.

    Raises:
        InputError: It cannot be made.
    """
    discard(folder.parent)
    hidden = hidden_folder(folder)
    try:
        for family in FAMILIES:
            (hidden / family).mkdir(parents=True)
    except OSError as error:
        raise unwritable(hidden, error) from error


def discard(root: Path) -> None:
    """Delete all hidden folders of a run. A failure costs only space, so it is a warning."""
    for hidden in root.glob(_HIDDEN + "*"):
        remove(hidden)


def remove(folder: Path) -> None:
    """Delete a checkpoint or a hidden folder, if it is there.

    The manifest goes first, so that a half-deleted checkpoint does not count as one. A failure
    costs only space, so it is a warning.
    """
    if not folder.exists():
        return
    try:
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        print(f"warning: {folder}: cannot be deleted ({error}); delete it by hand", flush=True)


def publish(folder: Path, stamps: list[Stamps]) -> None:
    """Write the manifest, then give the folder its name.

    An earlier checkpoint of the same step is replaced.

    Args:
        folder: Its place.
        stamps: Of the files that each rank wrote.

    Raises:
        InputError: It cannot be written. Nothing has its name then.
    """
    files: Stamps = {}
    for of_one_rank in stamps:
        files |= of_one_rank
    versions = {name: version(name) for name in ("torch", "deepspeed", "safetensors")}
    versions["python"] = platform.python_version()
    hidden = hidden_folder(folder)
    for family in FAMILIES:
        force_folder(hidden / family)
    write_json(hidden / MANIFEST, {"format": FORMAT, "files": files, "versions": versions})
    force_folder(hidden)
    publish_folder(hidden, folder, aside=hidden.with_name(hidden.name + "-replaced"))
    force_folder(folder.parent)  # the new name itself
