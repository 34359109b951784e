"""How members that are stacks of frames are stored: multispectral, radar, masks, and the labels.

A candidate codes blocks of ``group`` frames: 1 makes each frame readable alone, 0 puts the whole
stack in one block.
"""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs import blosc
from numcodecs.zstd import Zstd
from PIL import Image

BYTES = blosc.SHUFFLE
BITS = blosc.BITSHUFFLE
SHUFFLE_NAMES = {BYTES: "shuffle", BITS: "bitshuffle"}
GROUP_NAMES = {1: "", 0: ", whole stack"}  # frames in a block -> what a name says of it
STEP_DB = np.float32(0.01)  # of radar kept in 16 bits
Shape = tuple[int, ...]
Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes, Shape, np.dtype], np.ndarray]


@dataclass(frozen=True)
class StackCodec:
    """A way to store a stack of frames.

    Attributes:
        name: Name in the table.
        encode: Frames T ... -> bytes.
        decode: Bytes, shape and dtype -> frames.
        group: Frames in a block; 0: all.
        package: Import name of what it needs.
        pip: What pip calls that package.
        lossless: Whether every value comes back.
    """

    name: str
    encode: Encode
    decode: Decode
    group: int = 1
    package: str = "numcodecs"
    pip: str = "numcodecs"
    lossless: bool = True

    @property
    def available(self) -> bool:
        """Whether the codec's package is installed."""
        return importlib.util.find_spec(self.package) is not None

    def write(self, stack: np.ndarray) -> list[bytes]:
        """T ... -> the blocks."""
        step = self.group or len(stack)
        blocks = []
        for start in range(0, len(stack), step):
            blocks.append(self.encode(np.ascontiguousarray(stack[start : start + step])))
        return blocks

    def read(
        self, blocks: list[bytes], frames: np.ndarray, shape: Shape, dtype: np.dtype
    ) -> tuple[np.ndarray, int]:
        """Read some frames of a stack.

        Args:
            blocks: What ``write`` made.
            frames: Numbers of the frames, ascending.
            shape: Of the whole stack, T ...
            dtype: Of the stack.

        Returns:
            The frames, and the bytes that were read.
        """
        step = self.group or shape[0]
        out = np.empty((len(frames), *shape[1:]), dtype)
        size = 0
        for number in np.unique(frames // step):
            start = number * step
            block_shape = (min(step, shape[0] - start), *shape[1:])
            block = self.decode(blocks[number], block_shape, dtype)
            inside = frames // step == number
            out[inside] = block[frames[inside] - start]
            size += len(blocks[number])
        return out, size


# ---- compressors of bytes


def plain(name: str, compress: Callable, expand: Callable, group: int = 1) -> StackCodec:
    """Bytes through a compressor."""

    def encode(frames: np.ndarray) -> bytes:
        return bytes(compress(frames))

    def decode(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        return np.frombuffer(expand(data), dtype).reshape(shape)

    return StackCodec(name, encode, decode, group)


def raw(group: int = 1) -> StackCodec:
    """Not compressed."""

    def unchanged(data: bytes) -> bytes:
        return data

    return plain(f"raw{GROUP_NAMES[group]}", np.ndarray.tobytes, unchanged, group)


def zstd(level: int, group: int = 1) -> StackCodec:
    """Plain zstd."""
    codec = Zstd(level=level)
    return plain(f"zstd {level}{GROUP_NAMES[group]}", codec.encode, codec.decode, group)


def blosc1(kind: str, level: int, shuffle: int, group: int = 1) -> StackCodec:
    """Blosc: blocks, each (bit-)shuffled and compressed."""
    name = f"blosc {kind} {level} {SHUFFLE_NAMES[shuffle]}{GROUP_NAMES[group]}"
    codec = blosc.Blosc(cname=kind, clevel=level, shuffle=shuffle)
    return plain(name, codec.encode, codec.decode, group)


# ---- transforms before a codec


@dataclass(frozen=True)
class Transform:
    """What is done to frames before they are coded.

    Attributes:
        name: Stands before the codec's name.
        forward: Frames -> what is coded.
        back: What was coded and the dtype wanted -> frames.
        stored: Dtype of what is coded, where that is a lossy rounding; None: exact, same dtype.
    """

    name: str
    forward: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray, np.dtype], np.ndarray]
    stored: type | None = None


def transformed(transform: Transform, codec: StackCodec, group: int = 1) -> StackCodec:
    """``codec`` behind an array transform."""

    def encode(frames: np.ndarray) -> bytes:
        return codec.encode(np.ascontiguousarray(transform.forward(frames)))

    def decode(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        stored = np.dtype(transform.stored or dtype)
        return transform.back(codec.decode(data, shape, stored), dtype)

    return StackCodec(
        f"{transform.name} + {codec.name}",
        encode,
        decode,
        group,
        package=codec.package,
        pip=codec.pip,
        lossless=codec.lossless and transform.stored is None,
    )


def delta(codec: StackCodec, axis: int, group: int = 1) -> StackCodec:
    """Differences of 16-bit frames, modulo 2**16, along one axis.

    The sign is in the lowest bit, so that the upper bytes stay small.

    Args:
        codec: Stores the differences.
        axis: 0: along time, and any frame needs its whole block; -1: along rows.
        group: Frames in a block.
    """

    def forward(frames: np.ndarray) -> np.ndarray:
        zeros = np.zeros_like(frames.take([0], axis))
        step = np.diff(frames, axis=axis, prepend=zeros).view(np.int16)
        return ((step << 1) ^ (step >> 15)).view(frames.dtype)

    def back(coded: np.ndarray, dtype: np.dtype) -> np.ndarray:
        coded = coded.view(np.uint16)
        steps = (coded >> 1) ^ -(coded & 1)
        return np.cumsum(steps, axis=axis, dtype=np.uint16).view(dtype)

    name = "delta row"
    if axis == 0:
        name = f"delta time {group or 'whole'}"
    return transformed(Transform(name, forward, back), codec, group)


def half(codec: StackCodec) -> StackCodec:
    """float32 -> float16, whose step is 1/128 dB from 8 to 16 dB and 1/64 dB from 16 to 32 dB."""

    def forward(frames: np.ndarray) -> np.ndarray:
        return frames.astype(np.float16)

    def back(coded: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return coded.astype(dtype)

    return transformed(Transform("float16", forward, back, stored=np.float16), codec)


def hundredths(codec: StackCodec) -> StackCodec:
    """float32 dB -> int16 hundredths of a dB."""

    def forward(frames: np.ndarray) -> np.ndarray:
        return np.rint(frames / STEP_DB).astype(np.int16)

    def back(coded: np.ndarray, dtype: np.dtype) -> np.ndarray:
        return coded.astype(dtype) * STEP_DB

    return transformed(Transform("int16 0.01 dB", forward, back, stored=np.int16), codec)


def packed(codec: StackCodec) -> StackCodec:
    """Masks, eight pixels a byte."""

    def encode(frames: np.ndarray) -> bytes:
        return codec.encode(np.packbits(frames))

    def decode(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        count = int(np.prod(shape))
        bits = codec.decode(data, (-(-count // 8),), np.dtype(np.uint8))
        return np.unpackbits(bits, count=count).view(bool).reshape(shape)

    return StackCodec(f"bits + {codec.name}", encode, decode, codec.group)


# ---- codecs of other libraries


def planes(name: str, **options: Any) -> StackCodec:
    """A 16-bit image codec of imagecodecs, band below band in one grey image."""

    def encode(frames: np.ndarray) -> bytes:
        import imagecodecs

        image = frames.reshape(-1, frames.shape[-1])
        return bytes(getattr(imagecodecs, f"{name}_encode")(image, **options))

    def decode(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        import imagecodecs

        return getattr(imagecodecs, f"{name}_decode")(data).reshape(shape)

    return StackCodec(name, encode, decode, package="imagecodecs", pip="imagecodecs")


def pcodec(level: int) -> StackCodec:
    """A codec for columns of numbers, https://github.com/pcodec/pcodec."""

    def encode(frames: np.ndarray) -> bytes:
        from pcodec import ChunkConfig, standalone

        return standalone.simple_compress(frames.ravel(), ChunkConfig(compression_level=level))

    def decode(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        from pcodec import standalone

        return standalone.simple_decompress(data).reshape(shape)

    return StackCodec(f"pcodec {level}", encode, decode, package="pcodec", pip="pcodec")


def png() -> StackCodec:
    """One grey image (labels)."""

    def encode(frames: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(frames[0]).save(buffer, "PNG")
        return buffer.getvalue()

    def decode(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(data)))[None]

    return StackCodec("png, pillow", encode, decode, package="PIL", pip="pillow")


def webp() -> StackCodec:
    """One grey image as lossless WebP; it comes back as RGB."""

    def encode(frames: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(frames[0]).convert("RGB").save(buffer, "WEBP", lossless=True)
        return buffer.getvalue()

    def decode(data: bytes, shape: Shape, dtype: np.dtype) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(data)))[None, ..., 0]

    return StackCodec("webp lossless, pillow", encode, decode, package="PIL", pip="pillow")
