"""Byte ranges of a dataset's files, local or remote: every one checked, repeated when it failed,
and counted."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from fsspec.utils import get_protocol

from data.errors import InputError
from data.hashing import checksum
from data.storage.cache import Cache
from data.storage.remote import Fault, fault_of, open_filesystem

OPEN_FILES = 64  # local files that one process keeps open


@dataclass(frozen=True)
class StoreSettings:
    """How files are read; the defaults suit object stores."""

    attempts: int = 5  # tries a range before the sample counts as bad
    delay: float = 0.1  # seconds before the second try; doubled each time, with jitter
    max_delay: float = 10.0  # seconds
    timeout: float = 30.0  # seconds without an answer
    connections: int = 8  # ranges read at the same time, a process
    gap: int = 65536  # bytes: ranges of a file that lie closer are read as one request
    cache: str = ""  # folder of the local cache; "" = none
    cache_gb: float = 100.0
    options: dict = field(
        default_factory=dict
    )  # of fsspec's file system (s3: endpoint_url, anon, ...)

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        for name, least in (
            ("attempts", 1),
            ("connections", 1),
            ("gap", 0),
            ("delay", 0),
            ("max_delay", 0),
        ):
            if getattr(self, name) < least:
                return f"store.{name}: expected at least {least}, found {getattr(self, name)}"
        for name in ("timeout", "cache_gb"):
            if getattr(self, name) <= 0:
                return f"store.{name}: expected a positive number, found {getattr(self, name)}"
        return None


class Range(NamedTuple):
    """A stretch of a file and what it must hold."""

    offset: int  # bytes
    size: int  # bytes
    crc32c: int

    @property
    def stop(self) -> int:
        """The byte behind the last one."""
        return self.offset + self.size


class Request(NamedTuple):
    """Bytes start .. stop - 1 of a file, asked for at once, and the ranges that lie in it."""

    start: int
    stop: int
    ranges: list[int]  # positions in the caller's list


class ReadError(InputError):
    """A file or range could not be read whole and right, after the last try.

    positions: of the ranges that may be meant, in the caller's list."""

    positions: Sequence[int] = ()


class MissingFile(ReadError):
    """There is no such file."""


class Store:
    """Files under a root: a local folder or any URL of fsspec (http, https, s3; file).

    Nothing is opened before it is needed, and everything opened belongs to one process: a store may
    be forked and pickled, and used by several threads.

    Attributes: root: the folder or URL, without a slash at its end. remote: whether it is not the
        local file system. counts: "requests" sent; "bytes" received; "cache/hits", calls served
        from the cache; faults, one a failed
            request: "fault/connection" (an I/O error of a local file too), "fault/timeout",
            "fault/short" (fewer or more bytes than asked), "fault/status" (the server refuses, or
            there is no such file), "fault/checksum"; "fault/cache", damaged cached blocks.

    Raises InputError for impossible settings."""

    def __init__(self, root: str | Path, settings: StoreSettings = StoreSettings()):
        problem = settings.problem()
        if problem:
            raise InputError(problem)
        protocol = get_protocol(str(root))
        self.remote = protocol not in ("file", "local")
        self.root = (
            str(root).rstrip("/")
            if self.remote
            else str(Path(str(root).removeprefix(f"{protocol}://")))
        )
        self.settings, self.counts = settings, Counter()
        self.cache: Cache | None = None
        self._lock = (
            Lock()
        )  # held for moments only, so no fork finds it locked by a thread that it has not got
        # process id -> file system; one that a fork inherited must never be closed, so it stays
        self._filesystems = {}
        self._file = lru_cache(maxsize=OPEN_FILES)(
            lambda name: open(self._path(name), "rb", buffering=0)
        )

    def __reduce__(self):  # open files, connections and counts stay behind
        return Store, (self.root, self.settings), {"cache": self.cache}

    def keep(self, fingerprint: str, total: int) -> None:
        """Switch the cache on, if the settings name a folder, for a dataset of ``total`` bytes.
        Raises InputError."""
        if self.settings.cache:
            self.cache = Cache(
                self.settings.cache,
                fingerprint,
                min(1.0, self.settings.cache_gb * 1e9 / max(total, 1)),
            )

    def read(self, name: str, valid: Callable[[bytes], bool] | None = None) -> bytes:
        """A whole small file. ``valid`` says whether the bytes are right; wrong ones are asked for
        again.

        Raises MissingFile, or ReadError after the last try."""

        def ask(_):
            return [self._try(self._cat, name)]

        def check(_, data):
            return (
                None
                if valid is None or valid(data)
                else Fault("checksum", f"{len(data)} bytes of other content")
            )

        return self._answers(name, [None], ask, check)[0]

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when there is no such file. Raises ReadError when the server does
        not say."""
        try:
            return self._answers(
                name, [None], lambda _: [self._try(self._stat, name)], lambda *_: None
            )[0]
        except MissingFile:
            return None

    def ranges(
        self, name: str, ranges: Sequence[Range], block: tuple[int, int] | None = None
    ) -> list[bytes]:
        """Checked bytes of every range, in the order given.

        Args:
            name: file under the root.
            ranges: may overlap, lie in any order, or be empty.
            block: (offset, size) of the stretch, around all ranges, that the cache keeps whole.

        Raises MissingFile, or ReadError after the last try."""
        if block is None or self.cache is None or not self.cache.keeps(name, block[0]):
            return self._ranges(name, ranges, merge(ranges, self.settings.gap))[0]
        offset, size = block
        found = self.cache.read(
            name, offset, [(part.offset - offset, part.size) for part in ranges]
        )
        if found is not None:
            if not any(_problem(part, data) for part, data in zip(ranges, found)):
                self._count("cache/hits")
                return found
            self._count("fault/cache")
            self.cache.drop(name, offset)
        if self.cache.full:
            return self._ranges(name, ranges, merge(ranges, self.settings.gap))[0]
        found, (whole,) = self._ranges(
            name, ranges, [Request(offset, offset + size, list(range(len(ranges))))]
        )
        self.cache.write(name, offset, whole)
        return found

    # ---- asking, checking, asking again

    def _ranges(
        self, name: str, ranges: Sequence[Range], requests: list[Request]
    ) -> tuple[list[bytes], list[bytes]]:
        """Checked bytes of every range, and of every request."""

        def check(request: Request, data: bytes) -> Fault | None:
            if len(data) != request.stop - request.start:
                return Fault("short", f"{len(data)} bytes")
            for i in request.ranges:
                fault = _problem(ranges[i], _cut(data, request, ranges[i]))
                if fault:
                    return fault._replace(position=i)
            return None

        bodies = self._answers(name, requests, lambda pending: self._ask(name, pending), check)
        found = {
            i: _cut(data, request, ranges[i])
            for request, data in zip(requests, bodies)
            for i in request.ranges
        }
        return [found[i] for i in range(len(ranges))], bodies

    def _answers(self, name: str, requests: list, ask: Callable, check: Callable) -> list:
        """Right answers to all requests; those that failed are asked again together, after a
        growing pause.

        Args:
            ask: requests -> an answer or an exception for each.
            check: (request, answer) -> Fault or None."""
        answers, pending = {}, list(range(len(requests)))
        for attempt in range(1, self.settings.attempts + 1):
            self._count("requests", len(pending))
            faults = {}
            for number, answer in zip(pending, ask([requests[i] for i in pending])):
                self._count("bytes", len(answer) if isinstance(answer, bytes) else 0)
                fault = (
                    fault_of(answer)
                    if isinstance(answer, Exception)
                    else check(requests[number], answer)
                )
                if fault is None:
                    answers[number] = answer
                else:
                    self._count(f"fault/{fault.kind}")
                    faults[number] = fault
            pending = list(faults)
            final = next(
                (i for i, fault in faults.items() if not fault.again),
                pending[0] if pending else None,
            )
            if final is None:
                return [answers[i] for i in range(len(requests))]
            if not faults[final].again or attempt == self.settings.attempts:
                raise self._error(name, requests[final], faults[final], attempt)
            if not self.remote:
                self._file.cache_clear()  # a handle of a network file system may have gone stale
            time.sleep(self._pause(attempt))

    def _pause(self, attempt: int) -> float:
        """Seconds before the next try: half of it is chance, so that processes do not return all at
        once."""
        longest = min(self.settings.delay * 2 ** (attempt - 1), self.settings.max_delay)
        return longest * random.SystemRandom().uniform(
            0.5, 1
        )  # forks do not share it, no seeded generator moves

    def _error(self, name: str, request: Request | None, fault: Fault, attempt: int) -> ReadError:
        """The one line for the user."""
        asked = (
            "the file"
            if request is None
            else f"bytes {request.start} to {request.stop} of the file"
        )
        advice = (
            "check the address and the access rights"
            if not fault.again
            else "if it stays so, the file is damaged: copy it again"
            if fault.kind in ("short", "checksum")
            else "check the network and the server"
        )
        kind = MissingFile if fault.missing else ReadError
        error = kind(
            f"{self._path(name)}: expected {asked}, found {fault.text}, at try {attempt} of "
            f"{self.settings.attempts}; {advice}"
        )
        if request is not None:
            error.positions = request.ranges if fault.position is None else [fault.position]
        return error

    def _count(self, what: str, number: int = 1) -> None:
        """Threads count together."""
        with self._lock:
            self.counts[what] += number

    # ---- local file system or fsspec

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @property
    def _remote(self):
        """This process's file system. fsspec's have a thread and sockets, which no fork may share."""
        process, settings = os.getpid(), self.settings
        with self._lock:
            if process not in self._filesystems:
                self._filesystems[process] = open_filesystem(
                    self.root, settings.connections, settings.timeout, settings.options
                )
            return self._filesystems[process]

    def _ask(self, name: str, requests: list[Request]) -> list[bytes | Exception]:
        """One answer or exception a request."""
        if not self.remote:
            return [self._try(self._pread, name, request) for request in requests]
        return self._remote.cat_ranges(
            [self._path(name)] * len(requests),
            [request.start for request in requests],
            [request.stop for request in requests],
            on_error="return",
        )

    def _pread(self, name: str, request: Request) -> bytes:
        file = self._file(
            name
        )  # held: another thread may push it out of the cache, and the last holder closes it
        return os.pread(file.fileno(), request.stop - request.start, request.start)

    def _cat(self, name: str) -> bytes:
        return (
            self._remote.cat_file(self._path(name))
            if self.remote
            else Path(self._path(name)).read_bytes()
        )

    def _stat(self, name: str) -> int:
        """Bytes of a regular file."""
        if not self.remote:
            if os.path.isdir(self._path(name)):
                raise FileNotFoundError
            return os.stat(self._path(name)).st_size
        info = self._remote.info(self._path(name))
        if info["type"] != "file":
            raise FileNotFoundError
        if info["size"] is None:
            raise OSError("an answer without the size of the file")
        return info["size"]

    @staticmethod
    def _try(function: Callable, *arguments):
        """The result, or the exception as a value."""
        try:
            return function(*arguments)
        except Exception as error:  # fault_of raises again what it does not know
            return error


def merge(ranges: Sequence[Range], gap: int) -> list[Request]:
    """Requests that cover all ranges: those of a file that lie at most ``gap`` bytes apart become
    one."""
    requests = []
    for i in sorted(range(len(ranges)), key=lambda i: ranges[i].offset):
        if requests and ranges[i].offset - requests[-1].stop <= gap:
            last = requests[-1]
            requests[-1] = Request(last.start, max(last.stop, ranges[i].stop), [*last.ranges, i])
        else:
            requests.append(Request(ranges[i].offset, ranges[i].stop, [i]))
    return requests


def _cut(data: bytes, request: Request, part: Range) -> bytes:
    return data[part.offset - request.start : part.stop - request.start]


def _problem(part: Range, data: bytes) -> Fault | None:
    """What is wrong with the bytes of a range."""
    if len(data) != part.size:
        return Fault("short", f"{len(data)} bytes")
    found = checksum(data)
    if found != part.crc32c:
        return Fault(
            "checksum",
            f"CRC32C {found:08x} instead of {part.crc32c:08x} at {part.offset}, {part.size} bytes",
        )
    return None
