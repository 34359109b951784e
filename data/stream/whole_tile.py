"""Whole tiles as a model's input: upright, without changes of colour or date, one size for all."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data.shards.files import hr_levels
from data.shards.records import IndexEntry
from data.stream.decode import Source, decode
from data.stream.resize import masked_bicubic
from data.stream.views import by_pixel
from data.tiles.modalities import HR_PIXELS, MODALITIES, Modality
from data.tiles.modalities import normalise as normalised
from data.tiles.regions import NO_REGION, RegionTable
from data.tiles.tile import UNLABELLED, day_index


@dataclass(frozen=True)
class InputShape:
    """How every tile is shown, whatever its own size."""

    sides: dict[str, int]  # sensor -> pixels along a side
    frames: dict[str, int]  # sensor -> T, as many frames as a tile has at most


@dataclass
class WholeTile:
    """One tile. A sensor or frame that it lacks is an image of zeros with a false mask."""

    key: str
    region: int  # in the model's table; NO_REGION: without a place, or where training had no data
    images: dict[str, Tensor] = field(default_factory=dict)  # T C H W float32, normalised
    valid: dict[str, Tensor] = field(default_factory=dict)  # T H W bool
    days: dict[str, Tensor] = field(default_factory=dict)  # T int64, day of the year - 1
    labels: Tensor | None = None  # 8N 8N int64, -1 = no label; None: the tile has none


def empty_tile(shape: InputShape, key: str = "", region: int = NO_REGION) -> WholeTile:
    """A tile of which nothing is known."""
    tile = WholeTile(key, region)
    for name, side in shape.sides.items():
        frames = shape.frames[name]
        bands = len(MODALITIES[name].bands)
        tile.images[name] = torch.zeros(frames, bands, side, side)  # T C H W
        tile.valid[name] = torch.zeros(frames, side, side, dtype=torch.bool)  # T H W
        tile.days[name] = torch.zeros(frames, dtype=torch.int64)  # T
    return tile


@dataclass(frozen=True)
class ModelInput:
    """What a model says of its input."""

    shape: InputShape
    sensors: Mapping[str, Modality]  # with the means and deviations of its training
    regions: RegionTable  # of its prototypes


def read_whole_tile(dataset: Source, sample: int, inputs: ModelInput) -> WholeTile:
    """Read a tile.

    Of a longer series evenly spaced frames are taken, always the same.

    Args:
        dataset: where it lies.
        sample: number in the dataset.
        inputs: what the model takes.

    Raises:
        InputError: the sample cannot be read, is damaged, or nobody has measured a sensor.
    """
    shape = inputs.shape
    entry = dataset.entry(sample)
    frames = {}
    for name, count in shape.frames.items():
        frames[name] = spread(entry.usable.get(name, []), count)
    decoded = decode(dataset, sample, frames, level=_hr_level(entry, shape))
    tile = empty_tile(shape, entry.key, _region(entry, inputs.regions))
    for name, mask in decoded.valid.items():
        pixels = decoded.images(name).float()  # T C h w
        pixel_mask = by_pixel(mask, pixels.shape[-1] // mask.shape[-1])  # T h w
        pixels = pixels.masked_fill(~pixel_mask[:, None], 0.0)
        side = shape.sides[name]
        if pixels.shape[-1] != side:
            pixels, pixel_mask = masked_bicubic(pixels, pixel_mask, side)
        image = torch.from_numpy(normalised(pixels.numpy(), inputs.sensors[name]))  # T C H W
        count = len(image)
        tile.images[name][:count] = image.masked_fill(~pixel_mask[:, None], 0.0)
        tile.valid[name][:count] = pixel_mask
        days = [day_index(entry.dates[name][frame]) for frame in frames[name]]
        tile.days[name][:count] = torch.tensor(days)
    if decoded.labels is not None:
        labels = decoded.labels.long()  # 8N 8N
        tile.labels = labels.masked_fill(labels == UNLABELLED, -1)
    return tile


def spread(usable: list[int], count: int) -> np.ndarray:
    """At most ``count`` of the usable frames, evenly spaced and in time order."""
    if len(usable) <= count:
        return np.array(usable, np.int64)
    places = (np.arange(count) + 0.5) * len(usable) / count
    return np.array(usable, np.int64)[places.astype(np.int64)]


def _region(entry: IndexEntry, regions: RegionTable) -> int:
    """The row of a tile's prototypes."""
    if entry.place is None:
        return NO_REGION
    region = regions.lookup(*entry.place)
    if region is None:
        return NO_REGION
    return region


def _hr_level(entry: IndexEntry, shape: InputShape) -> int:
    """The coarsest stored reduction that has at least as many pixels as are shown."""
    level = 0
    side = shape.sides.get("hr", HR_PIXELS * entry.cells)
    while level + 1 < hr_levels(entry.members):
        if (HR_PIXELS * entry.cells) >> (level + 1) < side:
            break
        level += 1
    return level
