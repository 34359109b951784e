"""Files of the local file system."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

from data.storage.ranges import Request

OPEN_FILES = 64  # that one process keeps open


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call, or the exception as a value, to be judged by ``fault_of``."""
    try:
        return function(*arguments)
    except Exception as error:  # fault_of raises again what is no matter of files or networks
        return error


class LocalFiles:
    """Files under a folder, opened when they are needed."""

    def __init__(self, root: str):
        self._root = root
        self._opened = lru_cache(maxsize=OPEN_FILES)(self._open)

    def content(self, name: str) -> bytes:
        """A whole file."""
        return Path(self._path(name)).read_bytes()

    def size(self, name: str) -> int:
        """Bytes of a regular file."""
        path = self._path(name)
        if os.path.isdir(path):
            raise FileNotFoundError
        return os.stat(path).st_size

    def pieces(self, name: str, requests: Sequence[Request]) -> list[bytes | Exception]:
        """The bytes of each request, or what went wrong with it."""
        return [outcome(self._piece, name, request) for request in requests]

    def reopen(self) -> None:
        """Open files anew: a handle of a network file system may have gone stale."""
        self._opened.cache_clear()

    def _piece(self, name: str, request: Request) -> bytes:
        # Kept in a variable: another thread may push it out of the cache, and the last holder
        # closes it.
        file = self._opened(name)
        return os.pread(file.fileno(), request.stop - request.start, request.start)

    def _open(self, name: str) -> FileIO:
        return open(self._path(name), "rb", buffering=0)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
