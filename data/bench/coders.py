"""Coders of single images: JPEG, WebP, PNG and others, from several libraries."""

import importlib.util
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numcodecs.zstd import Zstd
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes, int], np.ndarray]


@dataclass(frozen=True)
class Coder:
    """How an image is coded.

    Attributes:
        encode: H W 3 uint8 -> bytes.
        decode: Bytes and a level -> the image at 1 / 2**level of its size.
        package: Import name of what it needs.
        pip: What pip calls that package.
        lossless: Whether every value comes back.
    """

    encode: Encode
    decode: Decode
    package: str = "PIL"
    pip: str = "pillow"
    lossless: bool = False

    @property
    def available(self) -> bool:
        """Whether the package is installed."""
        return importlib.util.find_spec(self.package) is not None


def pillow(kind: str, exact: bool = False, **options: Any) -> Coder:
    """Anything that pillow writes; JPEG alone is decoded at a reduced scale."""

    def encode(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        return buffer.getvalue()

    def decode(data: bytes, level: int) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        if level:
            image.draft("RGB", (image.width >> level, image.height >> level))
        return np.array(image)

    return Coder(encode, decode, lossless=exact)


def with_torchvision(coder: Coder) -> Coder:
    """The same bytes, decoded by torchvision."""

    def decode(data: bytes, level: int) -> np.ndarray:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        pixels = decode_image(buffer, ImageReadMode.RGB)  # 3 H W
        return pixels.permute(1, 2, 0).numpy()

    return replace(coder, decode=decode, package="torchvision", pip="torchvision")


def with_simplejpeg(coder: Coder, **options: Any) -> Coder:
    """The same bytes, decoded by simplejpeg (libjpeg-turbo), which scales in the inverse DCT."""

    def decode(data: bytes, level: int) -> np.ndarray:
        import simplejpeg

        if not level:
            return simplejpeg.decode_jpeg(data, **options)
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        return simplejpeg.decode_jpeg(
            data, min_height=height >> level, min_width=width >> level, **options
        )

    return Coder(coder.encode, decode, package="simplejpeg", pip="simplejpeg")


def with_imagecodecs(name: str, exact: bool = False, skips: bool = False, **options: Any) -> Coder:
    """A codec of imagecodecs.

    Args:
        name: Of the codec.
        exact: Whether it is lossless.
        skips: Whether its decoder can leave out resolutions.
        options: Of its encoder.
    """

    def encode(image: np.ndarray) -> bytes:
        import imagecodecs

        return bytes(getattr(imagecodecs, f"{name}_encode")(image, **options))

    def decode(data: bytes, level: int) -> np.ndarray:
        import imagecodecs

        decode_image = getattr(imagecodecs, f"{name}_decode")
        if skips:
            return decode_image(data, skipres=level)
        return decode_image(data)

    return Coder(encode, decode, package="imagecodecs", pip="imagecodecs", lossless=exact)


def zstd(level: int) -> Coder:
    """Raw pixels of square images through zstd; level 0: not compressed."""
    codec = Zstd(level=level)

    def encode(image: np.ndarray) -> bytes:
        if level == 0:
            return image.tobytes()
        return bytes(codec.encode(image))

    def decode(data: bytes, _: int) -> np.ndarray:
        if level != 0:
            data = codec.decode(data)
        pixels = np.frombuffer(bytearray(data), np.uint8)  # torch wants it writable
        side = math.isqrt(pixels.size // 3)
        return pixels.reshape(side, side, 3)

    return Coder(encode, decode, package="numcodecs", pip="numcodecs", lossless=True)
