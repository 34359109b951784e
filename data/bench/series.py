"""Candidates for the members that are stacks of frames: multispectral, radar, masks; and for the
labels.

A candidate codes blocks of ``group`` frames: 1 makes each frame readable alone, 0 puts the whole
    stack in one block.
"""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numcodecs import blosc
from numcodecs.zstd import Zstd
from PIL import Image

BYTES, BITS = blosc.SHUFFLE, blosc.BITSHUFFLE
GROUPS = {1: "", 0: ", whole stack"}  # frames in a block -> what a name says of it
STEP_DB = np.float32(0.01)  # of radar kept in 16 bits


@dataclass(frozen=True)
class StackCodec:
    """``encode``: frames T ... -> bytes. ``decode``: bytes, shape, dtype -> frames."""

    name: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, tuple, np.dtype], np.ndarray]
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
        return [
            self.encode(np.ascontiguousarray(stack[t : t + step]))
            for t in range(0, len(stack), step)
        ]

    def read(
        self, blocks: list[bytes], frames: np.ndarray, shape: tuple, dtype: np.dtype
    ) -> tuple[np.ndarray, int]:
        """The chosen ``frames`` (ascending) of a stack of ``shape`` T ...; and the bytes read."""
        step = self.group or shape[0]
        out, size = np.empty((len(frames), *shape[1:]), dtype), 0
        for block in np.unique(frames // step):
            here = frames // step == block
            length = min(step, shape[0] - block * step)
            out[here] = self.decode(blocks[block], (length, *shape[1:]), dtype)[
                frames[here] - block * step
            ]
            size += len(blocks[block])
        return out, size


# ---- coders


def plain(name: str, compress: Callable, expand: Callable, group: int = 1, **options) -> StackCodec:
    """Bytes through a compressor."""
    return StackCodec(
        name,
        lambda x: bytes(compress(x)),
        lambda data, shape, dtype: np.frombuffer(expand(data), dtype).reshape(shape),
        group,
        **options,
    )


def raw(group: int = 1) -> StackCodec:
    """Not compressed."""
    return plain(f"raw{GROUPS[group]}", lambda x: x.tobytes(), lambda data: data, group)


def zstd(level: int, group: int = 1) -> StackCodec:
    """Plain zstd."""
    codec = Zstd(level=level)
    return plain(f"zstd {level}{GROUPS[group]}", codec.encode, codec.decode, group)


def blosc1(kind: str, level: int, shuffle: int, group: int = 1) -> StackCodec:
    """Blosc: blocks, each (bit-)shuffled and compressed."""
    name = {BYTES: "shuffle", BITS: "bitshuffle"}[shuffle]
    codec = blosc.Blosc(cname=kind, clevel=level, shuffle=shuffle)
    return plain(f"blosc {kind} {level} {name}{GROUPS[group]}", codec.encode, codec.decode, group)


def changed(
    codec: StackCodec,
    name: str,
    forward: Callable,
    back: Callable,
    group: int = 1,
    stored: type | None = None,
) -> StackCodec:
    """``codec`` behind an array transform: ``back`` gets the array and the dtype wanted.
    ``stored``: dtype of what ``forward`` makes, where that is a lossy rounding; else it keeps the
    dtype and is exact."""
    return StackCodec(
        f"{name} + {codec.name}",
        lambda x: codec.encode(np.ascontiguousarray(forward(x))),
        lambda data, shape, dtype: back(
            codec.decode(data, shape, np.dtype(stored or dtype)), dtype
        ),
        group,
        codec.package,
        codec.pip,
        codec.lossless and stored is None,
    )


def delta(codec: StackCodec, axis: int, group: int = 1) -> StackCodec:
    """Differences of 16-bit frames along time (axis 0: any frame then needs its block) or along
    rows (-1), modulo 2**16, sign in the lowest bit so that the upper bytes stay small."""

    def forward(x: np.ndarray) -> np.ndarray:
        step = np.diff(x, axis=axis, prepend=np.zeros_like(x.take([0], axis))).view(np.int16)
        return ((step << 1) ^ (step >> 15)).view(x.dtype)

    def back(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
        x = x.view(np.uint16)
        return np.cumsum((x >> 1) ^ -(x & 1), axis=axis, dtype=np.uint16).view(dtype)

    where = "row" if axis else f"time {group or 'whole'}"
    return changed(codec, f"delta {where}", forward, back, group)


def half(codec: StackCodec) -> StackCodec:
    """float32 -> float16, whose step is 1/128 dB from 8 to 16 dB and 1/64 dB from 16 to 32 dB."""
    return changed(
        codec,
        "float16",
        lambda x: x.astype(np.float16),
        lambda x, dtype: x.astype(dtype),
        stored=np.float16,
    )


def hundredths(codec: StackCodec) -> StackCodec:
    """float32 dB -> int16 hundredths of a dB."""
    return changed(
        codec,
        "int16 0.01 dB",
        lambda x: np.rint(x / STEP_DB).astype(np.int16),
        lambda x, dtype: x.astype(dtype) * STEP_DB,
        stored=np.int16,
    )


def packed(codec: StackCodec) -> StackCodec:
    """Masks, eight pixels a byte."""

    def decode(data: bytes, shape: tuple, dtype: np.dtype) -> np.ndarray:
        count = int(np.prod(shape))
        bits = codec.decode(data, (-(-count // 8),), np.dtype(np.uint8))
        return np.unpackbits(bits, count=count).view(bool).reshape(shape)

    return StackCodec(
        f"bits + {codec.name}", lambda x: codec.encode(np.packbits(x)), decode, codec.group
    )


def planes(name: str, **options) -> StackCodec:
    """A 16-bit image codec of imagecodecs, band below band in one grey image."""

    def encode(x: np.ndarray) -> bytes:
        import imagecodecs

        return bytes(getattr(imagecodecs, f"{name}_encode")(x.reshape(-1, x.shape[-1]), **options))

    def decode(data: bytes, shape: tuple, dtype: np.dtype) -> np.ndarray:
        import imagecodecs

        return getattr(imagecodecs, f"{name}_decode")(data).reshape(shape)

    return StackCodec(name, encode, decode, package="imagecodecs", pip="imagecodecs")


def pcodec(level: int) -> StackCodec:
    """A codec for columns of numbers, https://github.com/pcodec/pcodec."""

    def encode(x: np.ndarray) -> bytes:
        from pcodec import ChunkConfig, standalone

        return standalone.simple_compress(x.ravel(), ChunkConfig(compression_level=level))

    def decode(data: bytes, shape: tuple, dtype: np.dtype) -> np.ndarray:
        from pcodec import standalone

        return standalone.simple_decompress(data).reshape(shape)

    return StackCodec(f"pcodec {level}", encode, decode, package="pcodec", pip="pcodec")


def png() -> StackCodec:
    """One grey image (labels)."""

    def encode(x: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(x[0]).save(buffer, "PNG")
        return buffer.getvalue()

    return StackCodec(
        "png, pillow",
        encode,
        lambda data, shape, dtype: np.array(Image.open(io.BytesIO(data)))[None],
        package="PIL",
        pip="pillow",
    )


def webp() -> StackCodec:
    """One grey image as lossless WebP; it comes back as RGB."""

    def encode(x: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(x[0]).convert("RGB").save(buffer, "WEBP", lossless=True)
        return buffer.getvalue()

    return StackCodec(
        "webp lossless, pillow",
        encode,
        lambda data, shape, dtype: np.array(Image.open(io.BytesIO(data)))[None, ..., 0],
        package="PIL",
        pip="pillow",
    )


def stack_codecs() -> dict[str, list[StackCodec]]:
    """Member -> its candidates; the first is what the others are compared with."""
    best = blosc1("zstd", 9, BYTES)
    pressed = [
        zstd(1),
        zstd(3),
        zstd(9),
        zstd(19),
        blosc1("lz4", 5, BYTES),
        blosc1("lz4", 5, BITS),
        blosc1("lz4hc", 9, BYTES),
        blosc1("zlib", 5, BYTES),
        blosc1("zstd", 5, BYTES),
        blosc1("zstd", 5, BITS),
        best,
        blosc1("zstd", 9, BITS),
        zstd(9, 0),
        blosc1("zstd", 9, BYTES, 0),
    ]
    return {
        "ms": [
            raw(),
            *pressed,
            delta(zstd(9), -1),
            delta(best, -1),
            delta(best, 0, 8),
            delta(best, 0, 0),
            pcodec(8),
            planes("lerc", level=0),
            planes("jpegls"),
            planes("jpegxl", lossless=True, effort=3, numthreads=1),
            planes("jpeg2k", reversible=True, level=0),
        ],
        "sar": [
            raw(),
            *pressed,
            pcodec(8),
            half(zstd(9)),
            half(best),
            hundredths(zstd(9)),
            hundredths(best),
            hundredths(blosc1("zstd", 9, BITS)),
            hundredths(delta(best, -1)),
            hundredths(pcodec(8)),
        ],
        "ms_valid": [
            raw(),
            zstd(3),
            zstd(9),
            packed(raw()),
            packed(zstd(9)),
            zstd(9, 0),
            packed(raw(0)),
            packed(zstd(9, 0)),
        ],
        "labels": [raw(), zstd(3), zstd(9), zstd(19), png(), webp()],
    }
