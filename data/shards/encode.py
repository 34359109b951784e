"""A tile -> the members of its sample, as bytes.

``meta.json``, ``labels.png``, ``hr.jpg`` (or ``hr.png``), of large tiles its reductions
``hr_2.jpg``, ``hr_4.jpg``, ..., and the stacks ``ms.blosc``, ``ms_valid.zst``, ... of
``data/shards/stacks.py``.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from data.errors import InputError
from data.shards.files import HR_SUFFIXES, hr_field
from data.shards.records import MaskLayout, SeriesLayout
from data.shards.stacks import MASKS, SERIES, encode_masks, encode_series
from data.tiles.modalities import HR_PIXELS, IMAGE
from data.tiles.splits import SPLITS
from data.tiles.tile import Tile

# Pixels: a global view of 512 that shows a third of a tile needs no finer one (docs/codecs.md).
LEAST_SIDE = 1024
# Quality of reductions, with colour at full size: fewer bytes and less loss than quality 95 with
# colour at half the size.
REDUCED_QUALITY = 90
PNG = "png"


@dataclass(frozen=True)
class ShardOptions:
    """How tiles are packed; with the tiles it decides every byte.

    Attributes:
        samples_per_shard: of all shards but the last.
        seed: of the order in which tiles are packed.
        hr_codec: of the high-resolution image, "jpeg" or "png".
        quality: of JPEG, 1 to 100.
        split: tiles of this one only, see ``data/tiles/splits.py``; empty: all.
    """

    samples_per_shard: int = 256
    seed: int = 0
    hr_codec: str = "jpeg"
    quality: int = 95
    split: str = ""

    def check(self) -> None:
        """Check the values.

        Raises:
            InputError: one of them is impossible.
        """
        known_codec = self.hr_codec in HR_SUFFIXES
        if not known_codec or not 1 <= self.quality <= 100 or self.samples_per_shard < 1:
            raise InputError(
                f"shards: expected hr_codec in {sorted(HR_SUFFIXES)}, quality in 1..100 and "
                f"samples_per_shard >= 1, found {self.hr_codec!r}, {self.quality}, "
                f"{self.samples_per_shard}"
            )
        if self.split and self.split not in SPLITS:
            raise InputError(f"split {self.split!r}: expected one of {list(SPLITS)}")


DEFAULT_OPTIONS = ShardOptions()


@dataclass(frozen=True)
class Encoded:
    """A member before it has its place in a tar.

    Attributes:
        suffix: its name behind the tile's key and a dot.
        data: its bytes.
        layout: of a stack.
    """

    suffix: str
    data: bytes
    layout: MaskLayout | SeriesLayout | None = None


def encode_tile(tile: Tile, options: ShardOptions) -> dict[str, Encoded]:
    """The members of a tile by field, in the order of the tar.

    Raises:
        InputError: a series holds numbers that cannot be stored.
    """
    members: dict[str, Encoded] = {}
    for name in tile.modalities:
        masks, layout = encode_masks(tile.valid[name])
        members[f"{name}_valid"] = Encoded(f"{name}_valid.{MASKS}", masks, layout)
        if name == IMAGE:
            members |= _encode_image(tile.arrays[name], options)
        else:
            members[name] = _encode_series(tile, name)
    if "labels" in tile.arrays:
        members["labels"] = Encoded("labels.png", _compressed(tile.arrays["labels"], PNG))
    return {"meta": _encode_meta(tile, members), **members}


def describe(tile: Tile) -> dict[str, Any]:
    """What both the index and the member ``meta.json`` say of a tile; see ``IndexEntry``."""
    dates = {}
    usable = {}
    for name in tile.modalities:
        dates[name] = tile.dates[name]
        usable[name] = np.flatnonzero(tile.valid[name].any((1, 2))).tolist()
    split = {}
    if tile.split:
        split["split"] = tile.split
    return {
        "key": tile.key,
        "cells": tile.cells,
        "lon": tile.lon,
        "lat": tile.lat,
        "modalities": tile.modalities,
        "dates": dates,
        "usable": usable,
        **split,
    }


def _encode_meta(tile: Tile, members: dict[str, Encoded]) -> Encoded:
    """The member that describes the sample to other programs."""
    stacks = {}
    for field, member in members.items():
        if member.layout is not None:
            stacks[field] = member.layout.model_dump()
    meta = {
        **describe(tile),
        "crs": tile.crs,
        "transform": tile.transform,
        "source": tile.source,
        "licence": tile.licence,
        "attribution": tile.attribution,
        "stacks": stacks,
    }
    return Encoded("meta.json", json.dumps(meta, sort_keys=True).encode())


def _encode_series(tile: Tile, name: str) -> Encoded:
    """The member of one series."""
    try:
        data, layout = encode_series(tile.arrays[name], tile.valid[name], name)
    except InputError as error:
        raise InputError(f"tile {tile.key!r}: {error}") from error
    return Encoded(f"{name}.{SERIES}", data, layout)


def _encode_image(image: np.ndarray, options: ShardOptions) -> dict[str, Encoded]:
    """The members of the high-resolution image, 3 H W uint8, and its reductions."""
    members = {}
    for level, reduced in enumerate(pyramid(image)):
        quality = options.quality
        if level > 0:
            quality = min(options.quality, REDUCED_QUALITY)
        data = _compressed(
            reduced.transpose(1, 2, 0), options.hr_codec, quality=quality, whole_colour=level > 0
        )
        field = hr_field(level)
        members[field] = Encoded(f"{field}.{HR_SUFFIXES[options.hr_codec]}", data)
    return members


def pyramid(image: np.ndarray) -> list[np.ndarray]:
    """An image, 3 H W uint8, and its reductions by 2, 4, ... down to ``LEAST_SIDE``.

    Views that shrink the image are cut from the coarsest level that is still as fine as they are.
    Means of 2 x 2 pixels in whole numbers are the same on every machine, and never mix pixels of
    two cells.
    """
    levels = [image]
    while levels[-1].shape[-1] >= 2 * LEAST_SIDE and HR_PIXELS >> len(levels):
        x = levels[-1].astype(np.uint16)  # 3 H W
        total = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]  # 3 H/2 W/2
        levels.append(((total + 2) >> 2).astype(np.uint8))
    return levels


def _compressed(
    array: np.ndarray, codec: str, *, quality: int = 0, whole_colour: bool = False
) -> bytes:
    """Encode H W 3 or H W uint8.

    Cells are whole blocks of JPEG, so an invalid cell leaves no traces in others.

    Args:
        array: the image.
        codec: "jpeg" or "png".
        quality: of JPEG.
        whole_colour: JPEG keeps colour at full size instead of half.
    """
    settings = {}
    if codec == "jpeg":
        subsampling = 2
        if whole_colour:
            subsampling = 0
        settings = {"quality": quality, "subsampling": subsampling}
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, codec, **settings)
    return buffer.getvalue()
