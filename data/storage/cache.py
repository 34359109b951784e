"""A local cache of a fixed share of a dataset's blocks (samples), kept for ever.

Every sample is used once an epoch in random order, so nothing is gained by evicting. Which blocks
are kept follows from a hash alone, so all processes of all nodes agree without talking. A block is
one file, moved to its place whole.
"""

import logging
import os
import time
import uuid
from pathlib import Path

from data.errors import InputError
from data.files import whole_file
from data.hashing import hash_64

PARTIAL = "partial"  # folder of files being written
STALE = 3600.0  # seconds after which a partial file is the rest of a killed process


class Cache:
    """Blocks of one dataset under ``folder/<fingerprint>/<file>/<offset>``.

    Attributes:
        folder: of this dataset.
        fingerprint: of the dataset.
        share: of the blocks that are kept, 0 to 1.
        full: whether the disk has refused this process.
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, share: float):
        """Make the folder; datasets and processes may share it.

        Raises:
            InputError: the folder cannot be written.
        """
        self.folder = Path(folder) / fingerprint
        self.fingerprint = fingerprint
        self.share = share
        self.full = False
        try:
            (self.folder / PARTIAL).mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise InputError(
                f"{folder}: expected a folder for the cache that can be written, found {error}; "
                f"choose another or none"
            ) from error

    def keeps(self, name: str, offset: int) -> bool:
        """Whether the block at ``offset`` of file ``name`` belongs to the share."""
        return hash_64(f"{self.fingerprint}/{name}/{offset}") < self.share * 2**64

    def read(self, name: str, offset: int, spans: list[tuple[int, int]]) -> list[bytes] | None:
        """Read parts of a kept block, unchecked.

        Args:
            name: file of the dataset.
            offset: of the block in the file.
            spans: offset in the block and size of each part.

        Returns:
            The bytes of each part; None when the block is not there. Bytes that the disk cannot
            read come empty, like any other damage.
        """
        try:
            with open(self._path(name, offset), "rb", buffering=0) as file:
                return [os.pread(file.fileno(), size, start) for start, size in spans]
        except FileNotFoundError:
            return None
        except OSError:
            return [b""] * len(spans)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Keep a block; readers see all of it or nothing.

        A disk that refuses ends the writing with a warning.
        """
        path = self._path(name, offset)
        try:
            with whole_file(path, scratch=self.folder / PARTIAL / uuid.uuid4().hex) as scratch:
                scratch.write_bytes(data)
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._stop(error)

    def drop(self, name: str, offset: int) -> None:
        """Remove a damaged block; another process may have been faster.

        A disk that refuses ends the writing too.
        """
        try:
            self._path(name, offset).unlink(missing_ok=True)
        except OSError as error:
            self._stop(error)

    def _stop(self, error: OSError) -> None:
        """Write no more in this process."""
        self.full = True
        logging.getLogger(__name__).warning(
            "%s: the cache cannot be written (%s); reading goes on without new entries",
            self.folder,
            error,
        )

    def _path(self, name: str, offset: int) -> Path:
        return self.folder / name / str(offset)

    def _sweep(self) -> None:
        """Remove what killed processes left half-written."""
        for path in (self.folder / PARTIAL).iterdir():
            try:
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink()
            except FileNotFoundError:
                pass  # moved to its place, or swept by another process
