"""Checksums and hashes of bytes: CRC32C against damage, BLAKE2b to name content.

Python's own ``hash`` differs from process to process; these do not.
"""

import hashlib
from typing import IO

import google_crc32c
import numpy as np

HASH_BYTES = 16  # of a content hash
CHUNK_BYTES = 2**24  # read at once from a file

Bytes = bytes | np.ndarray  # an array of uint8 with one axis


def checksum(data: bytes) -> int:
    """CRC32C (Castagnoli) of some bytes."""
    return google_crc32c.value(data)


class RunningChecksum:
    """CRC32C and number of bytes of what passes by in pieces."""

    def __init__(self) -> None:
        self.size = 0
        self.crc = 0

    def add(self, data: Bytes) -> None:
        """Count some bytes in."""
        self.size += len(data)
        self.crc = google_crc32c.extend(self.crc, data)

    @property
    def text(self) -> str:
        """The checksum so far in eight hexadecimal digits."""
        return f"{self.crc:08x}"


def stream_checksum(stream: IO[bytes]) -> tuple[int, int]:
    """Number of bytes in the rest of an open file, and their CRC32C."""
    running = RunningChecksum()
    while chunk := stream.read(CHUNK_BYTES):
        running.add(chunk)
    return running.size, running.crc


def new_hash(data: bytes = b""):
    """BLAKE2b of 128 bits, to be continued by ``update``."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES)


def content_hash(data: bytes) -> str:
    """BLAKE2b of 128 bits, in hexadecimal digits."""
    return new_hash(data).hexdigest()


def hash_64(text: str) -> int:
    """BLAKE2b of 64 bits, as a number in 0 .. 2**64 - 1."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
