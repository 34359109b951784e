"""The candidates for the members that are stacks of frames."""

from data.bench.series import (
    BITS,
    BYTES,
    StackCodec,
    blosc1,
    delta,
    half,
    hundredths,
    packed,
    pcodec,
    planes,
    png,
    raw,
    webp,
    zstd,
)


def stack_codecs() -> dict[str, list[StackCodec]]:
    """Member -> its candidates; the first is what the others are compared with."""
    return {
        "ms": [raw(), *_compressors(), *_multispectral()],
        "sar": [raw(), *_compressors(), *_radar()],
        "ms_valid": _masks(),
        "labels": [raw(), zstd(3), zstd(9), zstd(19), png(), webp()],
    }


def _best() -> StackCodec:
    """The compressor that the transforms are tried with."""
    return blosc1("zstd", 9, BYTES)


def _compressors() -> list[StackCodec]:
    """Compressors of bytes for numbers of any kind."""
    return [
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
        _best(),
        blosc1("zstd", 9, BITS),
        zstd(9, group=0),
        blosc1("zstd", 9, BYTES, group=0),
    ]


def _multispectral() -> list[StackCodec]:
    """16-bit reflectances."""
    return [
        delta(zstd(9), axis=-1),
        delta(_best(), axis=-1),
        delta(_best(), axis=0, group=8),
        delta(_best(), axis=0, group=0),
        pcodec(8),
        planes("lerc", level=0),
        planes("jpegls"),
        planes("jpegxl", lossless=True, effort=3, numthreads=1),
        planes("jpeg2k", reversible=True, level=0),
    ]


def _radar() -> list[StackCodec]:
    """float32 decibels."""
    return [
        pcodec(8),
        half(zstd(9)),
        half(_best()),
        hundredths(zstd(9)),
        hundredths(_best()),
        hundredths(blosc1("zstd", 9, BITS)),
        hundredths(delta(_best(), axis=-1)),
        hundredths(pcodec(8)),
    ]


def _masks() -> list[StackCodec]:
    """Validity of each pixel."""
    return [
        raw(),
        zstd(3),
        zstd(9),
        packed(raw()),
        packed(zstd(9)),
        zstd(9, group=0),
        packed(raw(group=0)),
        packed(zstd(9, group=0)),
    ]
