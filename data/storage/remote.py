"""Files behind a URL, through fsspec.

The libraries below repeat requests on their own: s3fs five times, botocore by its retry mode,
aiohttp once after a lost connection. That is switched off, except the last one inside S3's client:
one place repeats and counts, ``data.storage.store``.
"""

import os
from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any

import aiohttp
import fsspec

from data.errors import InputError
from data.storage.ranges import Request
from data.storage.settings import StoreSettings


class RemoteFiles:
    """Files under any URL that fsspec knows; connections are opened when they are needed."""

    def __init__(self, root: str, settings: StoreSettings):
        self._root = root
        self._settings = settings
        # Held for moments only, so no fork inherits it locked by a thread that it does not have.
        self._lock = Lock()
        # Process id -> file system. One that a fork inherited must never be closed, so it stays.
        self._filesystems: dict[int, fsspec.AbstractFileSystem] = {}

    def content(self, name: str) -> bytes:
        """A whole file."""
        return self._filesystem.cat_file(self._path(name))

    def size(self, name: str) -> int:
        """Bytes of a regular file."""
        info = self._filesystem.info(self._path(name))
        if info["type"] != "file":
            raise FileNotFoundError
        if info["size"] is None:
            raise OSError("an answer without the size of the file")
        return info["size"]

    def pieces(self, name: str, requests: Sequence[Request]) -> list[bytes | Exception]:
        """The bytes of each request, or what went wrong with it; all are asked at once."""
        starts = []
        stops = []
        for request in requests:
            starts.append(request.start)
            stops.append(request.stop)
        paths = [self._path(name)] * len(requests)
        return self._filesystem.cat_ranges(paths, starts, stops, on_error="return")

    def reopen(self) -> None:
        """Nothing to do: connections are no file handles."""

    @property
    def _filesystem(self) -> fsspec.AbstractFileSystem:
        """This process's file system: its thread and sockets must not be shared by a fork."""
        process = os.getpid()
        with self._lock:
            if process not in self._filesystems:
                self._filesystems[process] = open_filesystem(self._root, self._settings)
            return self._filesystems[process]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def open_filesystem(root: str, settings: StoreSettings) -> fsspec.AbstractFileSystem:
    """A new file system, of this process alone, for a URL.

    Raises:
        InputError: fsspec does not know the protocol, or its package is not installed.
    """
    protocol = fsspec.utils.get_protocol(root)
    own: dict[str, Any] = {"skip_instance_cache": True}
    if protocol in ("http", "https"):
        own["get_client"] = partial(_session, settings.connections, settings.timeout)
    elif protocol in ("s3", "s3a"):
        own["use_listings_cache"] = False
        own["config_kwargs"] = {
            "connect_timeout": settings.timeout,
            "read_timeout": settings.timeout,
            "max_pool_connections": settings.connections,
            "retries": {"total_max_attempts": 1},
            **settings.options.get("config_kwargs", {}),
        }
    try:
        filesystem = fsspec.filesystem(protocol, **{**settings.options, **own})
    except (ImportError, ValueError, TypeError) as error:
        raise InputError(
            f"{root}: cannot be opened with options {sorted(settings.options)} ({error}); "
            f"correct the address or the options, or install the package"
        ) from error
    filesystem.retries = 1  # of s3fs: tries, not repeats
    return filesystem


async def _session(connections: int, timeout: float, **options: Any) -> aiohttp.ClientSession:
    """aiohttp's session for fsspec.

    The timeout counts only while nothing arrives: a slow line may take longer.
    """
    # ranges are of the stored bytes, so no compression on the way
    headers = {"Accept-Encoding": "identity", **options.pop("headers", {})}
    defaults = {
        "timeout": aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
        "connector": aiohttp.TCPConnector(limit=connections),
        "middlewares": (_ask_once,),
        "headers": headers,
    }
    return aiohttp.ClientSession(**{**defaults, **options})


async def _ask_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """One request, one answer.

    No hidden second try on a lost connection, and no whole file where a range was asked for.
    """
    try:
        response = await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if isinstance(error, TimeoutError):
            raise
        message = str(error)
        if not message:
            message = type(error).__name__
        raise aiohttp.ClientConnectionError(message) from error
    if response.status == 200 and "Range" in request.headers:
        response.close()  # unread: the body may be a whole shard
        raise aiohttp.ClientResponseError(
            response.request_info,
            response.history,
            status=200,
            message="the server ignores ranges and sends the whole file",
        )
    return response
