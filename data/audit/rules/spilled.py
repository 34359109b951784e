"""Rows of numbers that wait on the disk: their memory does not grow with the number of samples."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.lib.recfunctions import repack_fields

IN_MEMORY = 1 << 24  # bytes of rows that need no file
CHUNK = 1 << 16  # rows from which some are chosen at a time


def _file() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(IN_MEMORY)


@dataclass
class SpilledRows:
    """Rows in the order in which they came, in a file of ``TMPDIR`` that nobody else sees.

    Attributes:
        dtype: their columns.
        number: how many there are.
    """

    dtype: np.dtype
    number: int = 0
    _written: IO[bytes] = field(default_factory=_file)

    def __len__(self) -> int:
        return self.number

    def append(self, row: bytes) -> None:
        """Add a row of ``dtype``."""
        self._written.write(row)
        self.number += 1

    def chunks(self, rows: int) -> Iterator[np.ndarray]:
        """All rows from the beginning, at most ``rows`` at a time."""
        self._written.seek(0)
        while data := self._written.read(rows * self.dtype.itemsize):
            yield np.frombuffer(data, self.dtype)

    def select(
        self, columns: list[str], is_chosen: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Some columns of the rows that are chosen, in their order.

        Args:
            columns: their names.
            is_chosen: rows -> which of them, bool.
        """
        chosen = [repack_fields(np.zeros(0, self.dtype)[columns])]
        for chunk in self.chunks(CHUNK):
            chosen.append(repack_fields(chunk[is_chosen(chunk)][columns]))
        return np.concatenate(chosen)
