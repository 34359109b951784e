"""Typed samples and batches: what cutting and loading give, in plain tensors."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from data.stream.augment import Colours, Levels, recolour, shift_levels
from data.stream.decode import Decoded
from data.stream.draw import SampleDraw
from data.stream.frames import ViewFrames
from data.stream.views import View, affine
from data.tiles.modalities import MODALITIES


@dataclass(frozen=True)
class CutView:
    """One view of a sample. A sensor that the sample lacks is absent."""

    view: View  # the rectangle on the tile, and how it is mirrored and turned
    # modality -> T C H W in the archive's unit, drawn frames, 0 where invalid; "hr" is uint8
    # without its colour changes, the others are float32
    images: dict[str, Tensor]
    valid: dict[str, Tensor]  # modality -> T H W bool
    frames: ViewFrames  # their days, and which of them the student sees
    labels: Tensor | None  # L L uint8, 255 = unlabelled; None: the sample has no labels
    colours: Colours  # changes of the high-resolution image
    levels: dict[str, Levels]  # changes of the other sensors; a sensor without is left as it is

    @property
    def affine(self) -> np.ndarray:
        """(u, v, 1) in [0, 1]^2 of the view -> (x, y) in 10 m cells of the tile: 2 3 float64."""
        return affine(self.view)

    def coloured(self, modality: str) -> Tensor:
        """The frames T C H W of a sensor as float32, divided by its scale, with drawn changes.

        "hr" is in [0, 1].
        """
        image = self.images[modality]  # T C H W
        if modality != "hr":
            sensor = MODALITIES[modality]
            if sensor.scale != 1:
                image = image / sensor.scale
            if modality not in self.levels:
                return image
            return shift_levels(image, sensor, self.levels[modality])
        return recolour(image[0], self.valid["hr"][0], self.colours)[None]  # 1 3 H W


class ViewName(NamedTuple):
    """Which view of a sample: its size, and its number among those of the size, from 0."""

    size: str
    number: int

    def __str__(self) -> str:
        return f"{self.size} {self.number + 1}"


@dataclass(frozen=True)
class CutSample:
    """One use of a sample: what was drawn, the decoded tile, and the views cut from it."""

    draw: SampleDraw
    tile: Decoded
    views: dict[str, list[CutView]]  # view size -> its views

    @property
    def names(self) -> list[ViewName]:
        """Names of all views, the global ones first."""
        names = []
        for size, views in self.views.items():
            names += [ViewName(size, number) for number in range(len(views))]
        return names

    def view(self, name: ViewName) -> CutView:
        """The view of that name."""
        return self.views[name.size][name.number]


@dataclass
class ViewSet:
    """All views of one size of a batch.

    Shapes follow from the settings alone: a missing sensor is an image of zeros with a false mask.
    """

    images: dict[str, Tensor]  # modality -> B V T C H W float32, normalised, zero where invalid
    valid: dict[str, Tensor]  # modality -> B V T H W bool
    days: dict[str, Tensor]  # modality -> B V T int64, day of year - 1 with jitter, 0 without frame
    seen: dict[str, Tensor]  # modality -> B V T bool, frames that the student sees
    labels: Tensor  # B V L L int64, class index, -1 = no label
    # B V 2 3 float64: (u, v, 1) in [0, 1]^2 of the view -> (x, y) in 10 m cells of the tile
    affine: Tensor
    # Colour changes that are still to be applied, V a sample: images["hr"] is uint8 as cut then.
    # None: they are applied.
    colours: list[list[Colours]] | None = None


@dataclass
class Batch:
    """One rank's slice of a step."""

    step: int
    keys: list[str]  # B sample keys, in the order of the slice
    views: dict[str, ViewSet]  # by view size
    region: Tensor  # B int64, index in the region table, -1 without a place
    # replaced samples: {"key", "reason", "step", "substitute"}
    quarantined: list[dict]
    # requests, bytes and faults of the store while the batch was made
    reads: dict[str, int] = field(default_factory=dict)
