"""How shards hold series and masks: arrays <-> bytes. The choice is measured: docs/codecs.md.

A series is one Blosc frame an acquisition (Zstandard over shuffled bytes), one behind the other, so
that any of them is read alone. Numbers of a sensor with a step are whole multiples of it. A stack
of masks is one zstd frame: all of them together are smaller than a table that says where each lies.
"""

from collections.abc import Sequence

import numpy as np
from numcodecs import blosc
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd

from data.errors import InputError
from data.hashing import checksum
from data.shards.records import MaskLayout, SeriesLayout
from data.tiles.modalities import MODALITIES

LEVEL = 9  # of both codecs: written once, read every epoch
SERIES = "blosc"  # suffix of a series
MASKS = "zst"  # suffix of a stack of masks
_UNWRITTEN = 255  # no pixel of a mask

blosc.use_threads = False  # worker processes are the parallelism


def encode_series(
    array: np.ndarray, valid: np.ndarray, modality: str
) -> tuple[bytes, SeriesLayout]:
    """Compress a series.

    Args:
        array: T C pN pN in the archive's unit, p pixels a cell.
        valid: T N N bool.
        modality: its sensor.

    Returns:
        The bytes and where each frame lies in them.

    Raises:
        InputError: numbers in valid pixels are not finite or too large for the sensor's step.
    """
    array = array.astype(array.dtype.newbyteorder("<"))
    pixels = by_pixel(valid, array.shape[-1] // valid.shape[-1])  # T pN pN
    usable = np.broadcast_to(pixels[:, None], array.shape)  # T C pN pN
    if not np.isfinite(array[usable]).all():
        raise InputError(
            f"{modality} holds NaN or infinite values in pixels marked valid; correct the mask and "
            f"prepare the tile again"
        )
    step = MODALITIES[modality].step
    if step is not None:
        array = _in_steps(array, usable, modality, step)
    codec = Blosc("zstd", clevel=LEVEL, shuffle=Blosc.SHUFFLE)
    chunks = []
    frames = []
    offset = 0
    for frame in array:
        chunk = codec.encode(np.ascontiguousarray(frame))
        chunks.append(chunk)
        frames.append((offset, len(chunk), checksum(chunk)))
        offset += len(chunk)
    layout = SeriesLayout(
        dtype=array.dtype.str, shape=tuple(array.shape[1:]), step=step, frames=frames
    )
    return b"".join(chunks), layout


def _in_steps(array: np.ndarray, usable: np.ndarray, modality: str, step: float) -> np.ndarray:
    """The nearest multiples of a step, as 16-bit integers; 0 where ``usable`` is false."""
    whole = np.rint(array.astype(np.float64) / step, where=usable, out=np.zeros(array.shape))
    limits = np.iinfo("<i2")
    if whole.min(initial=0) < limits.min or whole.max(initial=0) > limits.max:
        raise InputError(
            f"{modality}: expected values within {limits.min * step:g} .. {limits.max * step:g}, "
            f"found {whole.min() * step:g} .. {whole.max() * step:g}; correct the unit"
        )
    return whole.astype("<i2")


def decode_series(layout: SeriesLayout, chunks: Sequence[bytes]) -> np.ndarray:
    """Decompress some frames of a series: T C pN pN float32, in the archive's unit.

    Raises:
        InputError: a frame is not what the layout says.
    """
    dtype = np.dtype(layout.dtype)
    if dtype.kind not in "iuf":
        raise InputError(f"expected a series of numbers, found the type {layout.dtype!r}")
    frames = np.empty((len(chunks), *layout.shape), dtype=dtype)
    codec = Blosc()
    for frame, chunk in zip(frames, chunks):
        _check_frame(chunk, frame.nbytes)
        codec.decode(chunk, out=frame)
    series = frames.astype(np.float32, copy=False)
    if layout.step is None:
        return series
    return series * np.float32(layout.step)


def _check_frame(chunk: bytes, size: int) -> None:
    """Raise InputError if a Blosc frame is cut short, or does not hold ``size`` bytes.

    The decoder would read behind its end, or leave the rest of its output as it was.
    """
    holds = int.from_bytes(chunk[4:8], "little")
    length = int.from_bytes(chunk[12:16], "little")
    if (holds, length) != (size, len(chunk)):
        raise InputError(
            f"expected a frame of {size} bytes in {len(chunk)}, found {holds} in {length}"
        )


def by_pixel(valid: np.ndarray, pixels: int) -> np.ndarray:
    """A mask of cells, ... N N, as one of their pixels, ... pN pN."""
    if pixels == 1:
        return valid
    return valid.repeat(pixels, -2).repeat(pixels, -1)


def encode_masks(valid: np.ndarray) -> tuple[bytes, MaskLayout]:
    """Compress a stack of masks, T N N bool."""
    data = Zstd(level=LEVEL).encode(np.ascontiguousarray(valid))
    return data, MaskLayout(dtype="|b1", shape=tuple(valid.shape))


def decode_masks(layout: MaskLayout, data: bytes) -> np.ndarray:
    """Decompress a whole stack of masks: T N N bool.

    Raises:
        InputError: it holds fewer pixels than the layout says, or other values than 0 and 1.
    """
    # What the decoder does not write stays as it was.
    masks = np.full(layout.shape, _UNWRITTEN, np.uint8)
    Zstd().decode(data, out=masks)
    if masks.max(initial=0) > 1:
        raise InputError(f"expected {masks.size} pixels of 0 and 1, found fewer or others")
    return masks.view(bool)
