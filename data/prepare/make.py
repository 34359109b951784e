"""The work of one worker: a tile read, co-registered and stored."""

from dataclasses import dataclass
from pathlib import Path

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.files import files_kept_open
from data.prepare.manifest.entry import Entry
from data.prepare.record import MadeTile, RejectedTile, TileRecord, record_of
from data.tiles.archive import check_archive, discard_tile, is_intact, write_tile


@dataclass(frozen=True)
class Task:
    """A tile to be made."""

    entry: Entry
    # The record of an earlier run whose tile a power cut may have spoilt.
    doubtful: MadeTile | None = None


def make_tile(archive: Path, task: Task) -> TileRecord:
    """Read, co-register and store one tile.

    A tile of an earlier run stays if it is what its record says.

    Raises:
        InputError: the archive cannot be written.
    """
    entry = task.entry
    check_archive(archive)  # this process may be a new one, which does not know its sensors
    if task.doubtful and is_intact(archive, entry.key, task.doubtful.digest):
        return task.doubtful
    discard_tile(archive, entry.key)  # what a killed worker may have left
    try:
        with files_kept_open():
            for reader in entry.readers:
                reader.check()
            tile, notes = build_tile(entry)
    except InputError as error:
        return RejectedTile(entry.key, [f"tile rejected: {error}"])
    if tile is None:
        return RejectedTile(entry.key, notes)
    try:
        digest = write_tile(archive, tile)
    except OSError as error:
        raise InputError(
            f"{archive}: tile {entry.key!r} cannot be written ({error}); put that right and start "
            "the same command again"
        ) from error
    return record_of(tile, digest=digest, notes=notes)
