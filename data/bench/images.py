"""Candidates for the high-resolution member: how an image is stored, and what its views cost to cut
from it.

A candidate is a coder (JPEG, WebP, ...) and a layout: one image or a pyramid (full, half, quarter
size), whole or in tiles. A view is cut from the coarsest level that is not coarser than its output.
"""

import importlib.util
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numcodecs.zstd import Zstd
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_image

from data.stream.views import View
from data.tiles.modalities import HR_PIXELS

LEVELS = 3  # full, half and quarter size


@dataclass(frozen=True)
class Coder:
    """``encode``: H W 3 uint8 -> bytes. ``decode``: bytes, level -> the image at 1 / 2**level of
    its size."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes, int], np.ndarray]
    package: str = "PIL"  # import name of what it needs
    pip: str = "pillow"
    lossless: bool = False


@dataclass(frozen=True)
class HrCodec:
    """A way to store a tile."""

    name: str
    coder: Coder
    levels: int = 1  # images kept: full, half, quarter size
    reduced: Coder | None = None  # of the levels below full size, where it is another
    tile: int = 0  # pixels a side of separately coded squares; 0: whole
    scaled: bool = False  # one image, decoded straight to the level's size
    # levels are means of pixels instead of antialiased resizes: nothing crosses a cell's border
    means: bool = False
    one_level: bool = False  # cut all views from the finest level that any of them wants

    @property
    def available(self) -> bool:
        """Whether the coder's package is installed."""
        return importlib.util.find_spec(self.coder.package) is not None

    @property
    def pip(self) -> str:
        """What pip calls the coder's package."""
        return self.coder.pip

    @property
    def lossless(self) -> bool:
        """Whether views equal those of the uncompressed tile: no lossy coder, no level in between."""
        return self.coder.lossless and self.levels == 1 and not self.scaled

    def encode(self, image: np.ndarray) -> dict[tuple[int, int, int], bytes]:
        """S S 3 uint8 -> (level, row, column) -> bytes."""
        found = {}
        for level in range(self.levels):
            plane = (
                (means if self.means else resize)(image, len(image) >> level) if level else image
            )
            side, coder = self.tile or len(plane), self._coder(level)
            for y in range(0, len(plane), side):
                for x in range(0, len(plane), side):
                    part = np.ascontiguousarray(plane[y : y + side, x : x + side])
                    found[level, y // side, x // side] = coder.encode(part)
        return found

    def cut(
        self, stored: dict, views: list[tuple[View, int]], side: int
    ) -> tuple[list[Tensor], int]:
        """Cut (view, output pixels a side) from a stored tile of ``side`` pixels: 3 out out uint8
        each; bytes read."""
        levels = [
            level_of(view, out, LEVELS if self.scaled else self.levels) for view, out in views
        ]
        if self.one_level:
            levels = [min(levels)] * len(levels)
        planes, read = {}, set()
        for level in sorted(set(levels)):
            wanted = [box(view, level) for (view, _), found in zip(views, levels) if found == level]
            planes[level] = self._plane(stored, level, wanted, side >> level, read)
        cut = []
        for (view, out), level in zip(views, levels):
            x0, y0, x1, y1 = box(view, level)
            crop = torch.from_numpy(planes[level])[y0:y1, x0:x1].permute(2, 0, 1)  # 3 h w
            cut.append(
                interpolate(crop[None], (out, out), mode="bicubic", antialias=True)[0]
            )  # 3 out out
        return cut, sum(len(stored[key]) for key in read)

    def _plane(self, stored: dict, level: int, boxes: list, side: int, read: set) -> np.ndarray:
        """The level's S S 3 pixels, filled in where a box lies; adds the keys of what was decoded
        to ``read``."""
        kept, reduction = (0, level) if self.scaled else (level, 0)
        coder = self._coder(kept)
        if not self.tile:
            read.add((kept, 0, 0))
            return coder.decode(stored[kept, 0, 0], reduction)
        plane = np.empty((side, side, 3), np.uint8)
        for row, column in touched(boxes, self.tile):
            read.add((kept, row, column))
            part = coder.decode(stored[kept, row, column], reduction)
            y, x = row * self.tile, column * self.tile
            plane[y : y + len(part), x : x + part.shape[1]] = part
        return plane

    def _coder(self, level: int) -> Coder:
        return self.reduced if level and self.reduced else self.coder


def level_of(view: View, out: int, levels: int = LEVELS) -> int:
    """The coarsest of the first ``levels`` in which the view has at least ``out`` pixels along both
    sides."""
    return min(levels - 1, max(0, math.floor(math.log2(min(view.w, view.h) * HR_PIXELS / out))))


def box(view: View, level: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a view in pixels of a level."""
    p = HR_PIXELS >> level
    return view.x0 * p, view.y0 * p, (view.x0 + view.w) * p, (view.y0 + view.h) * p


def touched(boxes: list[tuple[int, int, int, int]], tile: int) -> set[tuple[int, int]]:
    """(row, column) of the tiles that any box overlaps."""
    return {
        (row, column)
        for x0, y0, x1, y1 in boxes
        for row in range(y0 // tile, -(-y1 // tile))
        for column in range(x0 // tile, -(-x1 // tile))
    }


def resize(image: np.ndarray, side: int) -> np.ndarray:
    """Antialiased bicubic resize of S S 3 uint8 to side side 3."""
    x = torch.from_numpy(image).permute(2, 0, 1)[None]  # 1 3 S S
    return (
        interpolate(x, (side, side), mode="bicubic", antialias=True)[0]
        .permute(1, 2, 0)
        .contiguous()
        .numpy()
    )


def means(image: np.ndarray, side: int) -> np.ndarray:
    """Means of whole blocks of pixels: S S 3 uint8 to side side 3."""
    block = len(image) // side
    blocks = image.reshape(side, block, side, block, 3)  # side b side b 3
    return ((blocks.sum((1, 3), dtype=np.uint32) + block**2 // 2) // block**2).astype(np.uint8)


# ---- coders


def pillow(kind: str, exact: bool = False, **options) -> Coder:
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
        pixels = decode_image(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB
        )  # 3 H W
        return pixels.permute(1, 2, 0).numpy()

    return Coder(coder.encode, decode, "torchvision", "torchvision", coder.lossless)


def with_simplejpeg(coder: Coder, **options) -> Coder:
    """The same bytes, decoded by simplejpeg (libjpeg-turbo), which scales in the inverse DCT."""

    def decode(data: bytes, level: int) -> np.ndarray:
        import simplejpeg

        if not level:
            return simplejpeg.decode_jpeg(data, **options)
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        return simplejpeg.decode_jpeg(
            data, min_height=height >> level, min_width=width >> level, **options
        )

    return Coder(coder.encode, decode, "simplejpeg", "simplejpeg")


def with_imagecodecs(name: str, exact: bool = False, skips: bool = False, **options) -> Coder:
    """A codec of imagecodecs; ``skips``: its decoder leaves out resolutions."""

    def encode(image: np.ndarray) -> bytes:
        import imagecodecs

        return bytes(getattr(imagecodecs, f"{name}_encode")(image, **options))

    def decode(data: bytes, level: int) -> np.ndarray:
        import imagecodecs

        return getattr(imagecodecs, f"{name}_decode")(data, **({"skipres": level} if skips else {}))

    return Coder(encode, decode, "imagecodecs", "imagecodecs", exact)


def zstd(level: int) -> Coder:
    """Raw pixels of square images through zstd; level 0: not compressed."""
    codec = Zstd(level=level)

    def encode(image: np.ndarray) -> bytes:
        return bytes(codec.encode(image)) if level else image.tobytes()

    def decode(data: bytes, _: int) -> np.ndarray:
        pixels = np.frombuffer(
            bytearray(codec.decode(data) if level else data), np.uint8
        )  # torch wants it writable
        side = math.isqrt(pixels.size // 3)
        return pixels.reshape(side, side, 3)

    return Coder(encode, decode, "numcodecs", "numcodecs", lossless=True)


def hr_codecs() -> list[HrCodec]:
    """All candidates; the first is what the others are compared with. ``444``: JPEG without halved
    chroma."""
    q95, q90 = pillow("JPEG", quality=95), pillow("JPEG", quality=90)
    tv95, tv90, sj95 = with_torchvision(q95), with_torchvision(q90), with_simplejpeg(q95)
    full = {
        quality: with_torchvision(pillow("JPEG", quality=quality, subsampling=0))
        for quality in (85, 90, 95)
    }
    jpeg8 = Coder(q95.encode, with_imagecodecs("jpeg8").decode, "imagecodecs", "imagecodecs")
    webp, png = pillow("WEBP", quality=95), pillow("PNG", exact=True)
    jxl = with_imagecodecs("jpegxl", distance=1.0, effort=4, numthreads=1)
    htj2k = with_imagecodecs("htj2k", skips=True, level=0.01, reversible=False)
    exact_webp = pillow("WEBP", exact=True, lossless=True)
    exact_jxl = with_imagecodecs("jpegxl", exact=True, lossless=True, effort=2, numthreads=1)
    exact_htj2k = with_imagecodecs("htj2k", exact=True, skips=True, reversible=True)
    pyramid, both = {"levels": LEVELS}, {"levels": 2, "one_level": True}
    return [
        HrCodec("jpeg 95 whole, pillow", q95),
        HrCodec("not compressed", zstd(0)),
        HrCodec("jpeg 95 whole, torchvision", tv95),
        HrCodec("jpeg 95 whole, simplejpeg", sj95),
        HrCodec(
            "jpeg 95 whole, simplejpeg, fast transform",
            with_simplejpeg(q95, fastdct=True, fastupsample=True),
        ),
        HrCodec("jpeg 95 whole, imagecodecs", jpeg8),
        HrCodec("jpeg 90 whole, torchvision", tv90),
        HrCodec("jpeg 95 444 whole, torchvision", full[95]),
        HrCodec("jpeg 95 decoded at scale, own levels, pillow", q95, scaled=True),
        HrCodec("jpeg 95 decoded at scale, one level, pillow", q95, scaled=True, one_level=True),
        HrCodec("jpeg 95 decoded at scale, own levels, simplejpeg", sj95, scaled=True),
        HrCodec(
            "jpeg 95 decoded at scale, one level, simplejpeg", sj95, scaled=True, one_level=True
        ),
        HrCodec("jpeg 95 tiles 256", tv95, tile=256),
        HrCodec("jpeg 95 tiles 512", tv95, tile=512),
        HrCodec("jpeg 95 full half quarter, own levels, pillow", q95, **pyramid),
        HrCodec("jpeg 95 full half quarter, own levels", tv95, **pyramid),
        HrCodec("jpeg 95 full half quarter, own levels, simplejpeg", sj95, **pyramid),
        HrCodec("jpeg 95 full half quarter, own levels, tiles 256", tv95, tile=256, **pyramid),
        HrCodec("jpeg 95 full half quarter, own levels, tiles 512", tv95, tile=512, **pyramid),
        HrCodec("jpeg 95 full half quarter, one level", tv95, one_level=True, **pyramid),
        HrCodec("jpeg 95 444 full half quarter, own levels", full[95], **pyramid),
        HrCodec("jpeg 95 full half, one level", tv95, **both),
        HrCodec("jpeg 95 full, 95 444 half, one level", tv95, reduced=full[95], **both),
        HrCodec("jpeg 95 full, 90 444 half, one level", tv95, reduced=full[90], **both),
        HrCodec("jpeg 95 full, 85 444 half, one level", tv95, reduced=full[85], **both),
        HrCodec("jpeg 90 full, 90 444 half, one level", tv90, reduced=full[90], **both),
        HrCodec("jpeg 95 full half by means, one level", tv95, means=True, **both),
        HrCodec(
            "jpeg 95 full, 90 444 half by means, one level",
            tv95,
            reduced=full[90],
            means=True,
            **both,
        ),
        HrCodec("webp 95 whole", webp),
        HrCodec("webp 95 full half, one level", webp, **both),
        HrCodec("jpeg xl 1.0 whole", jxl),
        HrCodec("jpeg xl 1.0 full half, one level", jxl, **both),
        HrCodec("htj2k whole", htj2k),
        HrCodec("htj2k decoded at scale, one level", htj2k, scaled=True, one_level=True),
        HrCodec("png whole, pillow", png),
        HrCodec("png whole, torchvision", with_torchvision(png)),
        HrCodec("png full half, one level", with_torchvision(png), **both),
        HrCodec("zstd 9 whole", zstd(9)),
        HrCodec("zstd 9 full half, one level", zstd(9), **both),
        HrCodec("zstd 9 full half by means, one level", zstd(9), means=True, **both),
        HrCodec("webp lossless whole", exact_webp),
        HrCodec("jpeg xl lossless whole", exact_jxl),
        HrCodec("htj2k lossless whole", exact_htj2k),
    ]
