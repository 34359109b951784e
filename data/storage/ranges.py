"""Stretches of a file, and the requests that ask for them."""

from collections.abc import Sequence
from typing import NamedTuple

from data.hashing import checksum
from data.storage.faults import Fault


class Range(NamedTuple):
    """A stretch of a file and what it must hold: offset and size in bytes, and the CRC32C."""

    offset: int
    size: int
    crc32c: int

    @property
    def stop(self) -> int:
        """The byte behind the last one."""
        return self.offset + self.size

    def fault(self, data: bytes) -> Fault | None:
        """What is wrong with the bytes that were read for it; None if they are right."""
        if len(data) != self.size:
            return Fault("short", f"{len(data)} bytes")
        crc32c = checksum(data)
        if crc32c != self.crc32c:
            return Fault(
                "checksum",
                f"CRC32C {crc32c:08x} instead of {self.crc32c:08x} at {self.offset}, "
                f"{self.size} bytes",
            )
        return None


class Request(NamedTuple):
    """Bytes start .. stop - 1 of a file, asked for at once, and the ranges that lie in it.

    Attributes:
        start: first byte.
        stop: the byte behind the last one.
        positions: of the ranges, in the caller's list.
    """

    start: int
    stop: int
    positions: list[int]

    def cut(self, data: bytes, part: Range) -> bytes:
        """The bytes of a range, out of the bytes of the request."""
        return data[part.offset - self.start : part.stop - self.start]

    def fault(self, data: bytes, ranges: Sequence[Range]) -> Fault | None:
        """What is wrong with the request's bytes; ``ranges`` is the caller's list."""
        if len(data) != self.stop - self.start:
            return Fault("short", f"{len(data)} bytes")
        for position in self.positions:
            part = ranges[position]
            fault = part.fault(self.cut(data, part))
            if fault is not None:
                return fault._replace(position=position)
        return None


def merge(ranges: Sequence[Range], gap: int) -> list[Request]:
    """Requests that cover all ranges; those at most ``gap`` bytes apart become one."""
    requests: list[Request] = []
    for position in sorted(range(len(ranges)), key=lambda i: ranges[i].offset):
        part = ranges[position]
        if requests and part.offset - requests[-1].stop <= gap:
            last = requests.pop()
            positions = [*last.positions, position]
            requests.append(Request(last.start, max(last.stop, part.stop), positions))
        else:
            requests.append(Request(part.offset, part.stop, [position]))
    return requests
