"""The candidates for the high-resolution member that are measured."""

from data.bench.coders import (
    Coder,
    pillow,
    with_imagecodecs,
    with_simplejpeg,
    with_torchvision,
    zstd,
)
from data.bench.images import LEVELS, HrCodec


def hr_codecs() -> list[HrCodec]:
    """All candidates; the first is what the others are compared with.

    ``444`` in a name: JPEG without halved chroma.
    """
    return [*_jpeg_whole(), *_jpeg_layouts(), *_jpeg_two_levels(), *_other_lossy(), *_lossless()]


def _jpeg(quality: int) -> Coder:
    return with_torchvision(pillow("JPEG", quality=quality))


def _jpeg_444(quality: int) -> Coder:
    return with_torchvision(pillow("JPEG", quality=quality, subsampling=0))


def _two_levels(name: str, coder: Coder, *, reduced: Coder | None = None) -> HrCodec:
    """Full and half size, all views of a sample from one of them."""
    return HrCodec(name, coder, levels=2, reduced=reduced, one_level=True)


def _two_levels_by_means(name: str, coder: Coder, *, reduced: Coder | None = None) -> HrCodec:
    """The same with means of pixels at half size."""
    return HrCodec(name, coder, levels=2, reduced=reduced, one_level=True, means=True)


def _jpeg_whole() -> list[HrCodec]:
    """One JPEG image, several decoders."""
    pillow_95 = pillow("JPEG", quality=95)
    fast = with_simplejpeg(pillow_95, fastdct=True, fastupsample=True)
    decoder = with_imagecodecs("jpeg8")
    jpeg8 = Coder(pillow_95.encode, decoder.decode, package=decoder.package, pip=decoder.pip)
    return [
        HrCodec("jpeg 95 whole, pillow", pillow_95),
        HrCodec("not compressed", zstd(0)),
        HrCodec("jpeg 95 whole, torchvision", _jpeg(95)),
        HrCodec("jpeg 95 whole, simplejpeg", with_simplejpeg(pillow_95)),
        HrCodec("jpeg 95 whole, simplejpeg, fast transform", fast),
        HrCodec("jpeg 95 whole, imagecodecs", jpeg8),
        HrCodec("jpeg 90 whole, torchvision", _jpeg(90)),
        HrCodec("jpeg 95 444 whole, torchvision", _jpeg_444(95)),
    ]


def _jpeg_layouts() -> list[HrCodec]:
    """JPEG at reduced scale, in tiles, and as a pyramid."""
    pillow_95 = pillow("JPEG", quality=95)
    simple_95 = with_simplejpeg(pillow_95)
    jpeg_95 = _jpeg(95)
    scaled = "jpeg 95 decoded at scale"
    pyramid = "jpeg 95 full half quarter"
    return [
        HrCodec(f"{scaled}, own levels, pillow", pillow_95, scaled=True),
        HrCodec(f"{scaled}, one level, pillow", pillow_95, scaled=True, one_level=True),
        HrCodec(f"{scaled}, own levels, simplejpeg", simple_95, scaled=True),
        HrCodec(f"{scaled}, one level, simplejpeg", simple_95, scaled=True, one_level=True),
        HrCodec("jpeg 95 tiles 256", jpeg_95, tile=256),
        HrCodec("jpeg 95 tiles 512", jpeg_95, tile=512),
        HrCodec(f"{pyramid}, own levels, pillow", pillow_95, levels=LEVELS),
        HrCodec(f"{pyramid}, own levels", jpeg_95, levels=LEVELS),
        HrCodec(f"{pyramid}, own levels, simplejpeg", simple_95, levels=LEVELS),
        HrCodec(f"{pyramid}, own levels, tiles 256", jpeg_95, levels=LEVELS, tile=256),
        HrCodec(f"{pyramid}, own levels, tiles 512", jpeg_95, levels=LEVELS, tile=512),
        HrCodec(f"{pyramid}, one level", jpeg_95, levels=LEVELS, one_level=True),
        HrCodec("jpeg 95 444 full half quarter, own levels", _jpeg_444(95), levels=LEVELS),
    ]


def _jpeg_two_levels() -> list[HrCodec]:
    """Full and half size, with several qualities of the half."""
    jpeg_95 = _jpeg(95)
    jpeg_90_444 = _jpeg_444(90)
    return [
        _two_levels("jpeg 95 full half, one level", jpeg_95),
        _two_levels("jpeg 95 full, 95 444 half, one level", jpeg_95, reduced=_jpeg_444(95)),
        _two_levels("jpeg 95 full, 90 444 half, one level", jpeg_95, reduced=jpeg_90_444),
        _two_levels("jpeg 95 full, 85 444 half, one level", jpeg_95, reduced=_jpeg_444(85)),
        _two_levels("jpeg 90 full, 90 444 half, one level", _jpeg(90), reduced=jpeg_90_444),
        _two_levels_by_means("jpeg 95 full half by means, one level", jpeg_95),
        _two_levels_by_means(
            "jpeg 95 full, 90 444 half by means, one level", jpeg_95, reduced=jpeg_90_444
        ),
    ]


def _other_lossy() -> list[HrCodec]:
    """WebP, JPEG XL and JPEG 2000."""
    webp = pillow("WEBP", quality=95)
    jpeg_xl = with_imagecodecs("jpegxl", distance=1.0, effort=4, numthreads=1)
    htj2k = with_imagecodecs("htj2k", skips=True, level=0.01, reversible=False)
    return [
        HrCodec("webp 95 whole", webp),
        _two_levels("webp 95 full half, one level", webp),
        HrCodec("jpeg xl 1.0 whole", jpeg_xl),
        _two_levels("jpeg xl 1.0 full half, one level", jpeg_xl),
        HrCodec("htj2k whole", htj2k),
        HrCodec("htj2k decoded at scale, one level", htj2k, scaled=True, one_level=True),
    ]


def _lossless() -> list[HrCodec]:
    """Codecs that keep every value."""
    png = pillow("PNG", exact=True)
    png_torchvision = with_torchvision(png)
    webp = pillow("WEBP", exact=True, lossless=True)
    jpeg_xl = with_imagecodecs("jpegxl", exact=True, lossless=True, effort=2, numthreads=1)
    htj2k = with_imagecodecs("htj2k", exact=True, skips=True, reversible=True)
    return [
        HrCodec("png whole, pillow", png),
        HrCodec("png whole, torchvision", png_torchvision),
        _two_levels("png full half, one level", png_torchvision),
        HrCodec("zstd 9 whole", zstd(9)),
        _two_levels("zstd 9 full half, one level", zstd(9)),
        _two_levels_by_means("zstd 9 full half by means, one level", zstd(9)),
        HrCodec("webp lossless whole", webp),
        HrCodec("jpeg xl lossless whole", jpeg_xl),
        HrCodec("htj2k lossless whole", htj2k),
    ]
