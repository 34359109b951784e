"""From bytes of a shard to pixels: only the drawn parts are read and decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from data.errors import InputError
from data.shards.dataset import ShardDataset, Want
from data.shards.files import hr_field
from data.shards.records import IndexEntry
from data.shards.stacks import decode_masks, decode_series
from data.stream.image_size import image_size
from data.stream.mixture import Mixture
from data.stream.views import by_pixel
from data.tiles.modalities import HR_PIXELS, MODALITIES
from data.tiles.tile import LABEL_PIXELS

Source = Mixture | ShardDataset


@dataclass(frozen=True)
class Raw:
    """The drawn bytes of one sample, checked, not yet decoded."""

    entry: IndexEntry
    frames: dict[str, np.ndarray]  # modality -> indices of the drawn frames
    level: int  # of the high-resolution image
    data: dict[Want, bytes]


@dataclass
class Decoded:
    """The drawn part of one sample, N cells a side. A sensor that the sample lacks is absent."""

    cells: int
    hr: Tensor | None = None  # 3 pN pN uint8, p = 32 / 2^level pixels a cell
    labels: Tensor | None = None  # 8N 8N uint8, 255 = unlabelled
    # modality except "hr" -> T C pN pN float32, p pixels a cell, drawn frames, 0 where invalid
    series: dict[str, Tensor] = field(default_factory=dict)
    valid: dict[str, Tensor] = field(default_factory=dict)  # modality -> T N N bool, drawn frames

    def images(self, modality: str) -> Tensor:
        """The drawn frames of a sensor, T C H W; "hr" is one frame of uint8."""
        if modality != "hr":
            return self.series[modality]
        if self.hr is None:
            raise KeyError(modality)
        return self.hr[None]


def decode(
    dataset: Source,
    sample: int,
    frames: dict[str, np.ndarray],
    *,
    level: int = 0,
    labels: bool = True,
) -> Decoded:
    """Read and decode parts of one sample.

    Args:
        dataset: a mixture or one sharded dataset.
        sample: number in the dataset.
        frames: modality -> indices of the stored frames.
        level: the high-resolution image is read at 1 / 2^level of its size.
        labels: whether to read the labels too.

    Raises:
        InputError: names key, field and shard of what cannot be read, is damaged, or has other
            bands or sides than the sensor and the sample's cells say.
    """
    return unpack(read_raw(dataset, sample, frames, level=level, labels=labels))


def read_raw(
    dataset: Source,
    sample: int,
    frames: dict[str, np.ndarray],
    *,
    level: int = 0,
    labels: bool = True,
) -> Raw:
    """Read the bytes that ``unpack`` needs, in one request; arguments and errors as ``decode``."""
    entry = dataset.entry(sample)
    wants: list[Want] = []
    if labels and "labels" in entry.members:
        wants.append(("labels", None))
    for modality, chosen in frames.items():
        if len(chosen) == 0:
            continue
        wants.append((f"{modality}_valid", None))
        if modality == "hr":
            wants.append((hr_field(level), None))
        else:
            wants += [(modality, int(frame)) for frame in chosen]
    data = dict(zip(wants, dataset.read(sample, wants), strict=True))
    return Raw(entry, frames, level, data)


def unpack(raw: Raw) -> Decoded:
    """Decode the bytes that were read.

    Raises:
        InputError: bands or sides are not those of the sensor and the sample's cells.
    """
    cells = raw.entry.cells
    decoded = Decoded(cells)
    for modality, chosen in raw.frames.items():
        if len(chosen) == 0:
            continue
        valid = _masks(raw, modality)[chosen]  # T N N
        decoded.valid[modality] = torch.from_numpy(valid)
        if modality == "hr":
            decoded.hr = _hr_image(raw)
        else:
            series = _series(raw, modality, chosen)  # T C pN pN
            pixels = by_pixel(decoded.valid[modality], MODALITIES[modality].pixels)  # T pN pN
            decoded.series[modality] = series.masked_fill_(~pixels[:, None], 0.0)
    if ("labels", None) in raw.data:
        side = LABEL_PIXELS * cells
        decoded.labels = _image(raw, "labels", side, ImageReadMode.GRAY)[0]  # 8N 8N
    return decoded


def _masks(raw: Raw, modality: str) -> np.ndarray:
    """Masks of all stored frames of a sensor: T N N bool."""
    name = f"{modality}_valid"
    layout = raw.entry.masks(name)
    cells = raw.entry.cells
    expected = (len(raw.entry.dates[modality]), cells, cells)
    _check_shape(raw, name, "frames x rows x columns", expected=expected, actual=layout.shape)
    with _naming(raw, name):
        return decode_masks(layout, raw.data[name, None])


def _hr_image(raw: Raw) -> Tensor:
    """The high-resolution image at the level that was read: 3 pN pN uint8."""
    side = (HR_PIXELS * raw.entry.cells) >> raw.level
    return _image(raw, hr_field(raw.level), side, ImageReadMode.RGB)


def _series(raw: Raw, modality: str, frames: np.ndarray) -> Tensor:
    """Some frames of a series: T C pN pN float32."""
    layout = raw.entry.series(modality)
    sensor = MODALITIES[modality]
    side = sensor.pixels * raw.entry.cells
    expected = (len(sensor.bands), side, side)
    axes = "bands x rows x columns"
    _check_shape(raw, modality, axes, expected=expected, actual=layout.shape)
    chunks = [raw.data[modality, int(frame)] for frame in frames]
    with _naming(raw, modality):
        return torch.from_numpy(decode_series(layout, chunks))


def _image(raw: Raw, member: str, side: int, mode: ImageReadMode) -> Tensor:
    """A JPEG or PNG of a sample that must have so many pixels along a side: C H W uint8."""
    data = raw.data[member, None]
    with _naming(raw, member):
        size = image_size(data)
    _check_shape(raw, member, "rows x columns", expected=(side, side), actual=size)
    with _naming(raw, member):
        return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode)


@contextmanager
def _naming(raw: Raw, member: str) -> Iterator[None]:
    """Give the error of a decoder the name of the sample and the member.

    Raises:
        InputError: the decoder failed.
    """
    try:
        yield
    except (InputError, RuntimeError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"sample {raw.entry.key!r}, field {member!r}: cannot be decoded ({line}); "
            "build the shards again"
        ) from error


def _check_shape(
    raw: Raw, member: str, axes: str, *, expected: tuple[int, ...], actual: tuple[int, ...]
) -> None:
    """Raise InputError if a decoded member has another shape than the index and sensor say."""
    if tuple(actual) == expected:
        return
    expected_sides = " x ".join(map(str, expected))
    actual_sides = " x ".join(map(str, actual))
    raise InputError(
        f"sample {raw.entry.key!r}, field {member!r}: expected {axes} of {expected_sides}, "
        f"found {actual_sides}; build the shards again"
    )
