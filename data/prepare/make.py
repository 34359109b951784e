"""The work of one worker: a tile read, co-registered and stored."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.blame import blamed_on, is_of_library, words_of
from data.prepare.contract.files import files_kept_open
from data.prepare.contract.source import main_file
from data.prepare.manifest.entry import Entry
from data.prepare.record import LeftOutTile, MadeTile, RejectedTile, TileRecord, record_of
from data.tiles.archive import check_archive, discard_tile, is_intact, write_tile
from data.tiles.modalities import MODALITIES

TOO_LITTLE = "with nothing, or less than half of the cells valid"


@dataclass(frozen=True)
class Task:
    """A tile to be made."""

    entry: Entry
    # The record of an earlier run whose tile a power cut may have spoilt.
    doubtful: MadeTile | None = None

    def __str__(self) -> str:
        return f"tile {self.entry.key!r}"


@dataclass(frozen=True)
class Bug:
    """A fault of this program, met while a tile was made. It travels as text between processes."""

    key: str
    error: str
    traceback: str

    def __str__(self) -> str:
        line = " ".join(self.error.split())
        return (
            f"tile {self.key!r}: {line}; this is a fault of the program and of no file, please "
            f"report it\n{self.traceback}"
        )


class BugError(RuntimeError):
    """A ``Bug`` ended the run; the first line of the message names the tile."""


@MODALITIES.apart()
def make_tile(archive: Path, task: Task) -> TileRecord | Bug:
    """Read, co-register and store one tile.

    A tile of an earlier run stays if it is what its record says. Whatever a library raises over the
    tile's files rejects the tile; any other error is a bug.

    Raises:
        InputError: the archive cannot be written.
    """
    try:
        return _made(archive, task)
    except InputError:
        raise
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        return Bug(task.entry.key, words, traceback.format_exc())


def _made(archive: Path, task: Task) -> TileRecord:
    """See ``make_tile``."""
    entry = task.entry
    if entry.fault:
        return RejectedTile(entry.key, [f"tile rejected: {entry.fault}"])
    check_archive(archive)  # and know its sensors
    if task.doubtful and is_intact(archive, entry.key, task.doubtful.digest):
        return task.doubtful
    discard_tile(archive, entry.key)  # what a killed worker may have left
    try:
        with files_kept_open():
            for reader in entry.readers:
                with blamed_on(main_file(reader)):
                    reader.check()
            tile, notes = build_tile(entry)
    except InputError as error:
        return RejectedTile(entry.key, [f"tile rejected: {error}"])
    except Exception as error:
        if not is_of_library(error):
            raise
        # Such as a file that cannot be closed.
        return RejectedTile(entry.key, [f"tile rejected: {words_of(error)}"])
    if tile is None:
        if entry.whole:
            return LeftOutTile(entry.key, TOO_LITTLE)
        return RejectedTile(entry.key, notes)
    try:
        digest = write_tile(archive, tile)
    except OSError as error:
        raise InputError(
            f"{archive}: tile {entry.key!r} cannot be written ({error}); put that right and start "
            "the same command again"
        ) from error
    return record_of(tile, digest=digest, notes=notes)
