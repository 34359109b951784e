"""Remote roots through fsspec: how a file system is opened, and which kind of fault an error means.

The libraries below repeat requests on their own: s3fs five times, botocore by its retry mode,
aiohttp once after a lost connection. That is switched off, except the last one inside S3's client:
one place repeats and counts, ``data.storage.store``.
"""

from functools import partial
from typing import NamedTuple

import aiohttp
import fsspec

from data.errors import InputError

MISSING = (404, 410)
AGAIN = (
    408,
    425,
    429,
)  # of the 4xx only these pass; a 200 to a range may come from a proxy, so it is asked again


class Fault(NamedTuple):
    """Why an answer is no use."""

    kind: str  # connection, timeout, short, status, checksum
    text: str  # what was expected and found
    again: bool = True  # whether another try may help
    missing: bool = False  # there is no such file
    position: int | None = None  # of the one range that is meant, in the caller's list


def open_filesystem(
    root: str, connections: int, timeout: float, options: dict
) -> fsspec.AbstractFileSystem:
    """A new file system, of this process alone, for a URL. ``timeout``: seconds without an answer.

    Raises InputError for a protocol that fsspec does not know or whose package is not installed."""
    protocol = fsspec.utils.get_protocol(root)
    own = {"skip_instance_cache": True}
    if protocol in ("http", "https"):
        own |= {"get_client": partial(_session, connections, timeout)}
    elif protocol in ("s3", "s3a"):
        config = {
            "connect_timeout": timeout,
            "read_timeout": timeout,
            "max_pool_connections": connections,
            "retries": {"total_max_attempts": 1},
            **options.get("config_kwargs", {}),
        }
        own |= {"config_kwargs": config, "use_listings_cache": False}
    try:
        filesystem = fsspec.filesystem(protocol, **{**options, **own})
    except (ImportError, ValueError, TypeError) as error:
        raise InputError(
            f"{root}: cannot be opened with options {sorted(options)} ({error}); "
            f"correct the address or the options, or install the package"
        ) from error
    filesystem.retries = 1  # of s3fs: tries, not repeats
    return filesystem


async def _session(connections: int, timeout: float, **options) -> aiohttp.ClientSession:
    """aiohttp's session for fsspec. The clock runs only while nothing arrives: a slow line may take
    longer."""
    return aiohttp.ClientSession(
        **{
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            "connector": aiohttp.TCPConnector(limit=connections),
            "middlewares": (_plain,),
            "headers": {"Accept-Encoding": "identity"}
            | options.pop("headers", {}),  # ranges are of the stored bytes
            **options,
        }
    )


async def _plain(request: aiohttp.ClientRequest, handler) -> aiohttp.ClientResponse:
    """One request, one answer: no hidden second try on a lost connection, and no whole file where a
    range was asked."""
    try:
        response = await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise aiohttp.ClientConnectionError(str(error) or type(error).__name__) from error
    if response.status == 200 and "Range" in request.headers:
        response.close()  # unread: the body may be a whole shard
        raise aiohttp.ClientResponseError(
            response.request_info,
            response.history,
            status=200,
            message="the server ignores ranges and sends the whole file",
        )
    return response


def fault_of(error: Exception) -> Fault:
    """Which fault an exception of a file system means; one that is no matter of files or networks
    is raised again."""
    links = [error] if error.__cause__ is None else [error, error.__cause__]
    names = [type(link).__name__ for link in links]
    status = next((found for found in map(_status, links) if found is not None), None)
    text = f"{names[0]}: {error}".rstrip(": ")
    if status is not None:
        return Fault(
            "status",
            f"status {status} ({error})",
            status < 400 or status >= 500 or status in AGAIN,
            status in MISSING,
        )
    if not isinstance(error, (OSError, aiohttp.ClientError)) and not _of_botocore(error):
        raise error
    # botocore is optional, so its classes are known by name
    if any(isinstance(link, TimeoutError) or "Timeout" in name for link, name in zip(links, names)):
        return Fault("timeout", text)
    if {"ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"} & set(names):
        return Fault("short", f"an answer that ends early ({text})")
    if len(links) == 1 and isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Fault("status", "no such file", again=False, missing=True)
    if isinstance(error, (PermissionError, IsADirectoryError)):
        return Fault("status", text, again=False)
    return Fault("connection", text)


def _status(error: BaseException) -> int | None:
    """HTTP status of aiohttp's and botocore's errors."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status
    response = getattr(error, "response", None) if _of_botocore(error) else None
    return response["ResponseMetadata"].get("HTTPStatusCode") if response else None


def _of_botocore(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore")
