"""Byte ranges of a dataset's files, local or remote.

Every range is checked, asked for again when it failed, and counted.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from fsspec.utils import get_protocol

from data.errors import InputError
from data.storage.cache import Cache
from data.storage.faults import Fault, MissingFile, ReadError, fault_of
from data.storage.local import LocalFiles, outcome
from data.storage.ranges import Range, Request, merge
from data.storage.remote import RemoteFiles
from data.storage.settings import DEFAULTS, StoreSettings

GIGABYTE = 1e9


class Store:
    """Files under a root: a local folder or any URL of fsspec (http, https, s3; file).

    Nothing is opened before it is needed, and everything opened belongs to one process. So a store
    may be forked and pickled, and used by several threads.

    Attributes:
        root: the folder or URL, without a slash at its end.
        remote: whether it is not the local file system.
        settings: how files are read.
        cache: the local cache, if it is switched on.
        counts: "requests" sent; "bytes" received; "cache/hits", calls served from the cache; and
            one a failed request: "fault/connection" (an I/O error of a local file too),
            "fault/timeout", "fault/short" (fewer or more bytes than asked for), "fault/status" (the
            server refuses, or there is no such file), "fault/checksum"; "fault/cache", damaged
            cached blocks.
    """

    def __init__(self, root: str | Path, settings: StoreSettings = DEFAULTS):
        """Remember the root; open nothing.

        Raises:
            InputError: the settings are impossible.
        """
        problem = settings.problem()
        if problem is not None:
            raise InputError(problem)
        protocol = get_protocol(str(root))
        self.remote = protocol not in ("file", "local")
        self.settings = settings
        self._files: LocalFiles | RemoteFiles
        if self.remote:
            self.root = str(root).rstrip("/")
            self._files = RemoteFiles(self.root, settings)
        else:
            self.root = str(Path(str(root).removeprefix(f"{protocol}://")))
            self._files = LocalFiles(self.root)
        self.counts: Counter[str] = Counter()
        self.cache: Cache | None = None
        # Held for moments only, so no fork inherits it locked by a thread that it does not have.
        self._lock = Lock()

    def __reduce__(self):  # open files, connections and counts stay behind
        return Store, (self.root, self.settings), {"cache": self.cache}

    def keep(self, fingerprint: str, total: int) -> None:
        """Switch the cache on, if the settings name a folder.

        Args:
            fingerprint: of the dataset.
            total: its bytes.

        Raises:
            InputError: the folder cannot be written.
        """
        if self.settings.cache:
            share = min(1.0, self.settings.cache_gb * GIGABYTE / max(total, 1))
            self.cache = Cache(self.settings.cache, fingerprint, share=share)

    def read(self, name: str, valid: Callable[[bytes], bool] | None = None) -> bytes:
        """Read a whole small file.

        Args:
            name: file under the root.
            valid: says whether the bytes are right; wrong ones are asked for again.

        Raises:
            MissingFile: there is no such file.
            ReadError: it could not be read, after the last try.
        """

        def check(_: None, data: bytes) -> Fault | None:
            if valid is None or valid(data):
                return None
            return Fault("checksum", f"{len(data)} bytes of other content")

        return self._about_file(name, self._files.content, check)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when there is no such file.

        Raises:
            ReadError: the server does not say.
        """
        try:
            return self._about_file(name, self._files.size, lambda *_: None)
        except MissingFile:
            return None

    def ranges(
        self, name: str, ranges: Sequence[Range], *, block: tuple[int, int] | None = None
    ) -> list[bytes]:
        """Read the bytes of every range, checked, in the order given.

        Args:
            name: file under the root.
            ranges: may overlap, lie in any order, or be empty.
            block: offset and size of the stretch, around all ranges, that the cache keeps whole.

        Raises:
            MissingFile: there is no such file.
            ReadError: a range could not be read, after the last try.
        """
        cache = self.cache
        if block is None or cache is None or not cache.keeps(name, block[0]):
            return self._merged(name, ranges)
        offset, size = block
        pieces = self._cached(cache, name, offset, ranges)
        if pieces is not None:
            return pieces
        if cache.full:
            return self._merged(name, ranges)
        whole = Request(offset, offset + size, list(range(len(ranges))))
        pieces, (data,) = self._checked(name, ranges, [whole])
        cache.write(name, offset, data)
        return pieces

    def _merged(self, name: str, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of every range, in as few requests as lie close together."""
        pieces, _ = self._checked(name, ranges, merge(ranges, self.settings.gap))
        return pieces

    def _cached(
        self, cache: Cache, name: str, offset: int, ranges: Sequence[Range]
    ) -> list[bytes] | None:
        """The bytes of every range from the cached block at ``offset``; None if it has none.

        A damaged block is dropped.
        """
        spans = [(part.offset - offset, part.size) for part in ranges]
        pieces = cache.read(name, offset, spans)
        if pieces is None:
            return None
        for part, data in zip(ranges, pieces):
            if part.fault(data) is not None:
                self._count("fault/cache")
                cache.drop(name, offset)
                return None
        self._count("cache/hits")
        return pieces

    def _checked(
        self, name: str, ranges: Sequence[Range], requests: list[Request]
    ) -> tuple[list[bytes], list[bytes]]:
        """The bytes of every range, and of every request."""
        answers = self._answers(
            name,
            requests,
            ask=lambda pending: self._files.pieces(name, pending),
            check=lambda request, data: request.fault(data, ranges),
        )
        pieces = {}
        for request, data in zip(requests, answers):
            for position in request.positions:
                pieces[position] = request.cut(data, ranges[position])
        return [pieces[position] for position in range(len(ranges))], answers

    def _about_file(self, name: str, ask: Callable[[str], Any], check: Callable) -> Any:
        """The right answer to a question about a whole file."""
        (answer,) = self._answers(
            name, [None], ask=lambda pending: [outcome(ask, name)], check=check
        )
        return answer

    def _answers(
        self,
        name: str,
        requests: Sequence[Request | None],
        *,
        ask: Callable[[list], list],
        check: Callable[[Any, Any], Fault | None],
    ) -> list:
        """Right answers to all requests.

        Those that failed are asked for again together, after a growing pause.

        Args:
            name: file under the root.
            requests: None asks about the whole file.
            ask: requests -> an answer or an exception for each.
            check: request, answer -> what is wrong with it.
        """
        answers: dict[int, Any] = {}
        pending = list(range(len(requests)))
        attempt = 0
        while True:
            attempt += 1
            self._count("requests", len(pending))
            faults: dict[int, Fault] = {}
            for number, answer in zip(pending, ask([requests[i] for i in pending])):
                fault = self._judge(requests[number], answer, check)
                if fault is None:
                    answers[number] = answer
                else:
                    faults[number] = fault
            if not faults:
                return [answers[number] for number in range(len(requests))]
            worst = _worst(faults)
            if not faults[worst].again or attempt == self.settings.attempts:
                raise self._error(name, requests[worst], faults[worst], attempt)
            pending = list(faults)
            self._files.reopen()
            time.sleep(self._pause(attempt))

    def _judge(
        self, request: Request | None, answer: Any, check: Callable[[Any, Any], Fault | None]
    ) -> Fault | None:
        """What is wrong with an answer; counts its bytes and its fault."""
        if isinstance(answer, bytes):
            self._count("bytes", len(answer))
        if isinstance(answer, Exception):
            fault: Fault | None = fault_of(answer)
        else:
            fault = check(request, answer)
        if fault is not None:
            self._count(f"fault/{fault.kind}")
        return fault

    def _pause(self, attempt: int) -> float:
        """Seconds before the next try.

        Half of it is chance, so that processes do not return all at once.
        """
        longest = min(self.settings.delay * 2 ** (attempt - 1), self.settings.max_delay)
        # the system's randomness: forks do not share it, and no seeded generator moves
        return longest * random.SystemRandom().uniform(0.5, 1)

    def _error(self, name: str, request: Request | None, fault: Fault, attempt: int) -> ReadError:
        """The one line for the user."""
        asked = "the file"
        if request is not None:
            asked = f"bytes {request.start} to {request.stop} of the file"
        kind = ReadError
        if fault.missing:
            kind = MissingFile
        error = kind(
            f"{self.root}/{name}: expected {asked}, found {fault.text}, at try {attempt} of "
            f"{self.settings.attempts}; {_advice(fault)}"
        )
        if fault.position is not None:
            error.positions = [fault.position]
        elif request is not None:
            error.positions = request.positions
        return error

    def _count(self, what: str, number: int = 1) -> None:
        """Add to a count; threads count together."""
        with self._lock:
            self.counts[what] += number


def _worst(faults: dict[int, Fault]) -> int:
    """The request to tell of: one that no other try helps, otherwise the first."""
    for number, fault in faults.items():
        if not fault.again:
            return number
    return next(iter(faults))


def _advice(fault: Fault) -> str:
    """What the user can do about a fault."""
    if not fault.again:
        return "check the address and the access rights"
    if fault.kind in ("short", "checksum"):
        return "if it stays so, the file is damaged: copy it again"
    return "check the network and the server"
