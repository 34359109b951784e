"""The arrays of .npy and .npz files, each read from the disk once."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile


class Arrays(AbstractContextManager):
    """The arrays of one file by name. The one of a .npy file has the name ''.

    Args:
        path: the file. Objects would need pickle, which runs what the file says, and are refused.
    """

    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)
        self._loaded: dict[str, np.ndarray] = {}
        if not isinstance(self._file, NpzFile):
            self._loaded[""] = self._file

    @property
    def names(self) -> list[str]:
        """The names of all arrays."""
        if isinstance(self._file, NpzFile):
            return sorted(self._file.files)
        return [""]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._loaded:
            self._loaded[name] = self._file[name]
        return self._loaded[name]

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._file, NpzFile):
            self._file.close()
