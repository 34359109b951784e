"""From bytes of a shard to pixels: only what was drawn is read and decoded."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numcodecs.zstd import Zstd
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from data.shards import ShardDataset


@dataclass
class Decoded:
    """The drawn part of one sample, N cells a side. What the place lacks is absent."""

    cells: int
    hr: Tensor | None = None  # 3 32N 32N uint8
    labels: Tensor | None = None  # 8N 8N uint8, 255 = unlabelled
    series: dict[str, Tensor] = field(default_factory=dict)  # modality but hr -> T C N N float32, drawn frames
    valid: dict[str, Tensor] = field(default_factory=dict)  # modality -> T N N bool, drawn frames


def decode(dataset: ShardDataset, sample: int, frames: dict[str, np.ndarray]) -> Decoded:
    """Read the drawn ``frames`` (modality -> indices) and the labels of a sample.

    Raises InputError naming key, field and shard for what cannot be read or is damaged."""
    members = dataset.entry(sample)["members"]
    found = Decoded(dataset.entry(sample)["cells"])
    for name, chosen in frames.items():
        if not len(chosen):
            continue
        if name == "hr":
            found.hr = _image(dataset.read_member(sample, "hr"), ImageReadMode.RGB)
        else:
            found.series[name] = torch.from_numpy(_stack(dataset, sample, name, chosen).astype(np.float32, copy=False))
        found.valid[name] = torch.from_numpy(_stack(dataset, sample, f"{name}_valid", chosen))
    if "labels" in members:
        found.labels = _image(dataset.read_member(sample, "labels"), ImageReadMode.GRAY)[0]
    return found


def _image(data: bytes, mode: ImageReadMode) -> Tensor:
    """JPEG or PNG bytes -> C H W uint8."""
    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode)


def _stack(dataset: ShardDataset, sample: int, name: str, frames: np.ndarray) -> np.ndarray:
    """Chosen frames of a stack, in its stored type: T ..."""
    member = dataset.entry(sample)["members"][name]
    out = np.empty((len(frames), *member["shape"]), dtype=member["dtype"])
    codec = Zstd()
    for frame, data in zip(out, dataset.read_frames(sample, name, frames)):
        codec.decode(data, out=frame)
    return out
