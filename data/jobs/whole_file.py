"""Text files that a reader finds whole or not at all."""

import os
from pathlib import Path

from data.errors import InputError


def check_place(option: str, path: Path) -> None:
    """Before the work: raise InputError, naming the command's ``option``, where no file could be
    written."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(
            f"{option}: expected the name of a file in a folder that exists, found {path}"
        )


def write_whole(path: Path, content: str) -> None:
    """Write under another name, then rename: an older file stays until the new one is whole."""
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(content, encoding="utf-8")
    os.replace(scratch, path)
