"""Files that a reader finds whole or not at all, even when the process that writes is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data.errors import InputError

PARTIAL = ".partial"  # ends the name of a file that is being written


def check_place(option: str, path: Path) -> None:
    """Check that a command will be able to write its result.

    Args:
        option: the command's option that names the file, such as ``--out``.
        path: the file.

    Raises:
        InputError: ``path`` is a folder, or the folder that it should lie in does not exist or
            cannot be written.
    """
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        raise InputError(
            f"{option}: expected the name of a file in a folder that exists, found {path}"
        )
    if not os.access(folder, os.W_OK):
        raise InputError(f"{option}: expected a folder that can be written, found {folder}")


@contextmanager
def whole_file(path: Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """Write a file under another name, and rename it when the block ends without an error.

    An older file at ``path`` stays until the new one is whole. After an error the scratch file is
    deleted.

    Args:
        path: where the file will lie.
        scratch: the other name, on the same file system. The default adds ``PARTIAL`` to the name.

    Yields:
        The path to write to.
    """
    if scratch is None:
        scratch = path.with_name(path.name + PARTIAL)
    try:
        yield scratch
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: the file.
        content: text is written as UTF-8.
        durable: force the content to the disk before the rename, against a power cut.
    """
    with whole_file(path) as scratch, open(scratch, "wb") as file:
        file.write(_encoded(content))
        if durable:
            force(file)


def write_durable(path: Path, content: str | bytes) -> None:
    """Write a file under its own name and force it to the disk.

    For files of a folder that is itself published by a rename.
    """
    with open(path, "wb") as file:
        file.write(_encoded(content))
        force(file)


def force(file: IO) -> None:
    """Wait until all that was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def force_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(staging: Path, folder: Path, *, aside: Path) -> None:
    """Give a finished folder its place.

    Args:
        staging: the finished folder, on the same file system as its place.
        folder: its place. An older folder there steps aside and is not deleted.
        aside: where the older folder goes; what an interrupted run left there is deleted.
    """
    if folder.exists():
        if aside.exists():
            shutil.rmtree(aside)
        folder.rename(aside)
    staging.rename(folder)


def _encoded(content: str | bytes) -> bytes:
    """Content as bytes."""
    if isinstance(content, str):
        return content.encode()
    return content
