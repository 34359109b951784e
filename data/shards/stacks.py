"""How shards hold series and masks: arrays <-> bytes. The choice is measured: docs/codecs.md.

A series is one Blosc frame an acquisition (Zstandard over shuffled bytes), one behind the other, so
that any of them is read alone; numbers with a step in the registry are whole multiples of it. A
stack of masks is one zstd frame: all of them together are smaller than the table that would find
one.
"""

from itertools import accumulate

import numpy as np
from numcodecs import blosc
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd

from data.errors import InputError
from data.hashing import checksum
from data.tiles.modalities import MODALITIES

LEVEL = 9  # of both: written once, read every epoch
SERIES, MASKS = "blosc", "zst"  # suffixes of the members

blosc.use_threads = False  # worker processes are the parallelism


def encode_series(array: np.ndarray, valid: np.ndarray, modality: str) -> tuple[bytes, dict]:
    """T C N N of a sensor -> bytes, and {"dtype", "shape" of a frame, "step", "frames": [[offset,
    size, crc32c]]}.

    valid: T N N bool. Raises InputError for values in valid pixels that are not finite or too large
        for the step."""
    step, array = MODALITIES[modality].step, array.astype(array.dtype.newbyteorder("<"))
    usable = np.broadcast_to(valid[:, None], array.shape)
    if not np.isfinite(array[usable]).all():
        raise InputError(
            f"{modality} holds NaN or infinite values in pixels marked valid; correct the mask and "
            f"prepare the tile again"
        )
    if step is not None:
        whole = np.rint(array.astype(np.float64) / step, where=usable, out=np.zeros(array.shape))
        limits = np.iinfo("<i2")
        if whole.min(initial=0) < limits.min or whole.max(initial=0) > limits.max:
            raise InputError(
                f"{modality}: expected values within {limits.min * step:g} .. {limits.max * step:g}, "
                f"found {whole.min() * step:g} .. {whole.max() * step:g}; correct the unit"
            )
        array = whole.astype("<i2")
    codec = Blosc("zstd", clevel=LEVEL, shuffle=Blosc.SHUFFLE)
    chunks = [codec.encode(np.ascontiguousarray(frame)) for frame in array]
    offsets = accumulate(map(len, chunks), initial=0)
    frames = [[offset, len(chunk), checksum(chunk)] for offset, chunk in zip(offsets, chunks)]
    return b"".join(chunks), {
        "dtype": array.dtype.str,
        "shape": list(array.shape[1:]),
        "step": step,
        "frames": frames,
    }


def decode_series(member: dict, chunks: list[bytes]) -> np.ndarray:
    """Some frames of a series by its index entry: T C N N float32, in the archive's unit."""
    out = np.empty((len(chunks), *member["shape"]), dtype=member["dtype"])
    codec = Blosc()
    for frame, chunk in zip(out, chunks):
        codec.decode(chunk, out=frame)
    out = out.astype(np.float32, copy=False)
    return out if member["step"] is None else out * np.float32(member["step"])


def encode_masks(valid: np.ndarray) -> tuple[bytes, dict]:
    """T N N bool -> bytes and {"dtype", "shape" of the whole stack}."""
    data = Zstd(level=LEVEL).encode(np.ascontiguousarray(valid))
    return data, {"dtype": "|b1", "shape": list(valid.shape)}


def decode_masks(member: dict, data: bytes) -> np.ndarray:
    """The whole stack: T N N bool."""
    out = np.empty(member["shape"], dtype=member["dtype"])
    Zstd().decode(data, out=out)
    return out
