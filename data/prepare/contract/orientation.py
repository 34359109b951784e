"""How a picture wants to be turned before it is shown: the tag Orientation of TIFF and EXIF.

GDAL passes it over, and tells it of JPEG alone.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

UPRIGHT = 1  # the first pixel is the upper left one
ORIENTATION = 274  # number of the tag
PNG = b"\x89PNG\r\n\x1a\n"
BYTE_ORDERS = {b"II": "<", b"MM": ">"}
BIG_TIFF = 43  # the version of a TIFF with addresses of 8 bytes
EXIF = b"Exif\x00\x00"  # which some writers put before the block


@dataclass(frozen=True)
class _Layouts:
    """How the parts of a TIFF's directory are stored, as ``struct`` says it."""

    offset: str  # of the directory
    count: str  # of its entries
    entry: str  # its tag and the number in its field of values


CLASSIC = _Layouts("I", "H", "H6xH2x")
BIG = _Layouts("4xQ", "Q", "H10xH6x")


def orientation_of(path: Path) -> int:
    """The orientation that a TIFF, PNG or WebP says, from 1 to 8; 1 where it says none.

    Raises:
        struct.error: the file ends too early.
    """
    with path.open("rb") as file:
        start = file.read(12)
        if start.startswith(PNG):
            return _of_png(file)
        if start[:4] == b"RIFF" and start[8:] == b"WEBP":
            return _of_webp(file)
        return _of_tiff(file, 0)


def _of_png(file: BinaryIO) -> int:
    """The orientation in the chunk eXIf, which may stand behind the pixels."""
    file.seek(len(PNG))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            return _of_exif(file)
        if name == b"IEND":
            break
        file.seek(length + 4, 1)  # a checksum follows
    return UPRIGHT


def _of_webp(file: BinaryIO) -> int:
    """The orientation in the chunk EXIF."""
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"EXIF":
            return _of_exif(file)
        file.seek(length + length % 2, 1)  # chunks begin at even bytes
    return UPRIGHT


def _of_exif(file: BinaryIO) -> int:
    """The orientation in an EXIF block, which is a TIFF without pixels."""
    start = file.tell()
    if file.read(len(EXIF)) == EXIF:
        start += len(EXIF)
    return _of_tiff(file, start)


def _of_tiff(file: BinaryIO, start: int) -> int:
    """The orientation in the first directory of the TIFF that begins at ``start``, if it is one."""
    file.seek(start)
    order = BYTE_ORDERS.get(file.read(2))
    if order is None:
        return UPRIGHT
    (version,) = _read(file, order + "H")
    layouts = CLASSIC
    if version == BIG_TIFF:
        layouts = BIG
    (offset,) = _read(file, order + layouts.offset)
    file.seek(start + offset)
    (count,) = _read(file, order + layouts.count)
    for _ in range(count):
        tag, value = _read(file, order + layouts.entry)
        if tag == ORIENTATION:
            return int(value)
    return UPRIGHT


def _read(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
