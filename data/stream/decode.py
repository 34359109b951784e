"""From bytes of a shard to pixels: only what was drawn is read and decoded."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from data.shards.dataset import ShardDataset, Want
from data.shards.files import hr_field
from data.shards.stacks import decode_masks, decode_series
from data.stream.mixture import Mixture

Source = Mixture | ShardDataset


@dataclass
class Raw:
    """The drawn bytes of one sample, checked, not yet decoded."""

    entry: dict  # of the index
    frames: dict[str, np.ndarray]  # modality -> indices of the drawn frames
    level: int  # of the high-resolution image
    data: dict[Want, bytes]


@dataclass
class Decoded:
    """The drawn part of one sample, N cells a side. What the place lacks is absent."""

    cells: int
    hr: Tensor | None = None  # 3 pN pN uint8, p = 32 / 2^level pixels a cell
    labels: Tensor | None = None  # 8N 8N uint8, 255 = unlabelled
    # modality but hr -> T C N N float32, drawn frames, zero where invalid
    series: dict[str, Tensor] = field(default_factory=dict)
    valid: dict[str, Tensor] = field(default_factory=dict)  # modality -> T N N bool, drawn frames


def decode(dataset: Source, sample: int, frames: dict[str, np.ndarray], level: int = 0) -> Decoded:
    """Read and decode the drawn ``frames`` (modality -> indices), the labels, and the
    high-resolution image at 1 / 2^level of its size.

    Raises InputError naming key, field and shard for what cannot be read or is damaged."""
    return unpack(read_raw(dataset, sample, frames, level))


def read_raw(dataset: Source, sample: int, frames: dict[str, np.ndarray], level: int = 0) -> Raw:
    """The bytes that ``unpack`` needs, in one reading. Raises InputError; see ``decode``."""
    entry = dataset.entry(sample)
    wants: list[Want] = [("labels", None)] if "labels" in entry["members"] else []
    for name, chosen in frames.items():
        if not len(chosen):
            continue
        wants.append((f"{name}_valid", None))
        wants += (
            [(hr_field(level), None)] if name == "hr" else [(name, int(frame)) for frame in chosen]
        )
    return Raw(entry, frames, level, dict(zip(wants, dataset.read(sample, wants), strict=True)))


def unpack(raw: Raw) -> Decoded:
    """Pixels of the bytes that were read."""
    found, members = Decoded(raw.entry["cells"]), raw.entry["members"]
    for name, chosen in raw.frames.items():
        if not len(chosen):
            continue
        masks = decode_masks(members[f"{name}_valid"], raw.data[f"{name}_valid", None])
        found.valid[name] = torch.from_numpy(masks[chosen])  # T N N
        if name == "hr":
            found.hr = _image(raw.data[hr_field(raw.level), None], ImageReadMode.RGB)
        else:
            series = torch.from_numpy(
                decode_series(members[name], [raw.data[name, int(i)] for i in chosen])
            )
            found.series[name] = series.masked_fill_(~found.valid[name][:, None], 0.0)  # T C N N
    if ("labels", None) in raw.data:
        found.labels = _image(raw.data["labels", None], ImageReadMode.GRAY)[0]
    return found


def _image(data: bytes, mode: ImageReadMode) -> Tensor:
    """JPEG or PNG bytes -> C H W uint8."""
    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode)
