"""Writing a safetensors file piece by piece, with its checksum, forced to the disk.

The library's own writer leaves files that only their owner can read, names no file in its errors,
and its result would have to be read back for a checksum. Files are read with the library.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.errors import InputError
from data.files import force
from data.hashing import RunningChecksum

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8  # bytes, of the first tensor
# Bytes written at once. Python's lock is held while a piece's checksum is computed: a thread that
# writes must not stop the others for long.
_PIECE = 2**20


def write_tensors(
    file: Path,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, str] | None = None,
    *,
    contents: Iterable[Tensor] | None = None,
) -> dict:
    """Write tensors of any device into a new file.

    Args:
        file: The file.
        tensors: By name.
        header: Texts by name for the file's header.
        contents: Where ``tensors`` have shapes and types alone, as on the meta device: the tensors
            in that order, one asked for after the other was written.

    Returns:
        Size and CRC32C of the file, as ``files.stamp`` gives them.

    Raises:
        InputError: It cannot be written; the line names the file and the system's reason.
    """
    if contents is None:
        contents = tensors.values()
    try:
        with open(file, "wb") as stream:
            running = RunningChecksum()
            for chunk in chain([_head(tensors, header or {})], _bytes(contents)):
                stream.write(chunk.data)
                running.add(chunk)
            force(stream)
    except OSError as error:
        raise unwritable(file, error) from error
    return {"size": running.size, "crc32c": running.text}


def unwritable(file: Path, error: OSError) -> InputError:
    """What to say of a file that cannot be written."""
    reason = (error.strerror or str(error)).lower()
    return InputError(
        f"{file}: cannot be written ({reason}); nothing half-written was kept, make room or choose "
        "another place"
    )


def _bytes(tensors: Iterable[Tensor]) -> Iterator[np.ndarray]:
    """The bytes of tensors, one piece after another."""
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().flatten()
        content = flat.view(torch.uint8).numpy()
        for begin in range(0, len(content), _PIECE):
            yield content[begin : begin + _PIECE]


def _head(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> np.ndarray:
    """The beginning of a file: the length of a JSON object, and the object."""
    description: dict[str, dict] = {}
    if header:
        description["__metadata__"] = dict(header)
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.nbytes
        description[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(description, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return np.frombuffer(len(text).to_bytes(8, "little") + text, np.uint8)
