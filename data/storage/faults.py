"""What is wrong with an answer: which kind of fault an error means, and the errors for the user."""

from collections.abc import Sequence
from typing import NamedTuple

import aiohttp

from data.errors import InputError

MISSING = (404, 410)  # HTTP status: there is no such file
# Of the 4xx only these may pass. A 200 to a range may come from a proxy, so it is asked again.
TEMPORARY = (408, 425, 429)
CUT_SHORT = {"ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"}


class ReadError(InputError):
    """A file or range could not be read whole and right, after the last try.

    Attributes:
        positions: of the ranges that may be meant, in the caller's list.
    """

    positions: Sequence[int] = ()


class MissingFile(ReadError):
    """There is no such file."""


class Fault(NamedTuple):
    """Why an answer is no use.

    Attributes:
        kind: "connection", "timeout", "short", "status" or "checksum".
        text: what was found.
        again: whether another try may help.
        missing: whether there is no such file.
        position: of the one range that is meant, in the caller's list; None: all of the request.
    """

    kind: str
    text: str
    again: bool = True
    missing: bool = False
    position: int | None = None


def fault_of(error: Exception) -> Fault:
    """The fault that an exception of a file system means.

    Raises:
        Exception: ``error`` itself, if it has nothing to do with files or networks.
    """
    chain: list[BaseException] = [error]
    if error.__cause__ is not None:
        chain.append(error.__cause__)
    names = [type(link).__name__ for link in chain]
    for link in chain:
        status = _http_status(link)
        if status is not None:
            return _status_fault(status, error)
    if not isinstance(error, (OSError, aiohttp.ClientError)) and not _of_botocore(error):
        raise error
    text = f"{names[0]}: {error}".rstrip(": ")
    if any(_is_timeout(link) for link in chain):
        return Fault("timeout", text)
    if not CUT_SHORT.isdisjoint(names):
        return Fault("short", f"an answer that ends early ({text})")
    if len(chain) == 1 and isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Fault("status", "no such file", again=False, missing=True)
    if isinstance(error, (PermissionError, IsADirectoryError)):
        return Fault("status", text, again=False)
    return Fault("connection", text)


def _status_fault(status: int, error: Exception) -> Fault:
    """The fault of a server that answers with an HTTP status."""
    refused = 400 <= status < 500 and status not in TEMPORARY
    return Fault(
        "status",
        f"status {status} ({error})",
        again=not refused,
        missing=status in MISSING,
    )


def _is_timeout(error: BaseException) -> bool:
    """Whether an exception says that nothing came in time.

    botocore is optional, so its classes are known by name.
    """
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__


def _http_status(error: BaseException) -> int | None:
    """HTTP status of the errors of aiohttp and botocore; None for other errors."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status
    if not _of_botocore(error):
        return None
    response = getattr(error, "response", None)
    if not response:
        return None
    return response["ResponseMetadata"].get("HTTPStatusCode")


def _of_botocore(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore")
