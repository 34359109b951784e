"""Rows and columns that a PNG or a JPEG says it has, read from its header alone.

A picture of one colour with a thousand times the pixels is hardly larger as a file. So its size is
compared before it is decoded.
"""

from data.errors import InputError

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Markers of a JPEG's frame header, which holds the size. Between them stand the three that do not.
_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(data: bytes) -> tuple[int, int]:
    """Rows and columns of an image.

    Raises:
        InputError: neither a PNG nor a JPEG, or no header in it.
    """
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        return _number(data[20:24]), _number(data[16:20])
    if data.startswith(_JPEG):
        return _jpeg_size(data)
    raise InputError(f"expected a PNG or a JPEG, found bytes that begin with {data[:8].hex()}")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Rows and columns from the frame header, behind segments of other kinds."""
    place = len(_JPEG)
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # filling
            place += 1
        elif marker in _FRAME:
            return _number(data[place + 5 : place + 7]), _number(data[place + 7 : place + 9])
        else:
            place += 2 + _number(data[place + 2 : place + 4])
    raise InputError("expected a JPEG with a frame header, found none")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
