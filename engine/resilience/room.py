"""Room on the disk for a rank's last words, which are most needed when the disk is full."""

from pathlib import Path

_FILES = 4  # what a failure writes: a folder, a traceback, stacks, the verdict
_BYTES = 2**14  # of each; a traceback of DeepSpeed's depth has 10 kB


class Room:
    """Files without meaning that give their place to others."""

    def __init__(self, folder: Path, rank: int):
        """Keep nothing yet.

        Args:
            folder: Of the run, on the disk that may be full.
            rank: Of this process.
        """
        self._files = [folder / f"room-{rank:05d}-{number}" for number in range(_FILES)]

    def keep(self) -> None:
        """Write the files. Not zeros, which some disks do not store."""
        for file in self._files:
            file.write_bytes(b"room" * (_BYTES // 4))

    def free(self) -> None:
        """Delete the files, those that are there."""
        for file in self._files:
            file.unlink(missing_ok=True)
