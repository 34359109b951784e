"""Typed samples and batches: what the loader gives, in plain tensors."""

from dataclasses import dataclass, field

from torch import Tensor

from data.stream.augment import Colours


@dataclass
class ViewSet:
    """All views of one size of a batch. Shapes are fixed by the configuration: a missing modality
    is a mask."""

    images: dict[str, Tensor]  # modality -> B V T C H W float32, normalised, zero where invalid
    valid: dict[str, Tensor]  # modality -> B V T n n bool on the view's 10 m grid
    labels: Tensor  # B V L L int64, class index, -1 = no label
    # B V 2 3 float64: (u, v, 1) in [0, 1]^2 of the view -> (x, y) in 10 m cells of the tile
    affine: Tensor
    # colours still to be applied, V a sample: then images["hr"] is uint8 as cut; None: they are
    # applied
    colours: list[list[Colours]] | None = None


@dataclass
class Batch:
    """One rank's slice of a step."""

    step: int
    keys: list[str]  # B sample keys, in the order of the slice
    views: dict[str, ViewSet]  # "global", "local"
    days: dict[
        str, Tensor
    ]  # modality -> B T int64, day of year - 1 (after jitter), 0 where no frame
    region: Tensor  # B int64 index in the region table
    quarantined: list[
        dict
    ]  # records of samples that were replaced: {"key", "reason", "step", "substitute"}
    reads: dict[str, int] = field(
        default_factory=dict
    )  # requests, bytes and faults of the store while it was made
