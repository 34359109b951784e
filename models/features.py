"""The plain objects that enter and leave the model."""

from dataclasses import dataclass

from torch import Tensor

FUSED = "fused"  # name of the fused features beside those of the modalities


@dataclass
class Views:
    """All views of one size in the local batch."""

    images: dict[
        str, Tensor
    ]  # modality -> B V T C H W, normalised; what stands in invalid pixels has no influence
    valid: dict[
        str, Tensor
    ]  # modality -> B V T n n bool on the view's 10 m grid, or any that divides the image
    days: dict[str, Tensor]  # modality -> B T int64, day of year - 1
    region: Tensor  # B int64, index of the sample's region; -1: no context
    grid: tuple[int, int] | None = (
        None  # rows and columns of the fusion grid; None: as the cells of valid say
    )


@dataclass
class Features:
    """What the model makes of the views of one size. ``hr``, ``ms``, ``sar`` have the last stage's
    width."""

    maps: dict[str, Tensor]  # modality or "fused" -> B V T h w D (fused: T = 1)
    valid: dict[str, Tensor]  # modality or "fused" -> B V T h w bool
    query: Tensor | None = (
        None  # B V g g D, projection of the fusion output that reads and updates the prototypes
    )


def pooled(features: Features, name: str) -> tuple[Tensor, Tensor]:
    """Mean over the valid cells and frames of the first view: (B, D) float32, and whether there are
    any (B,)."""
    mask = features.valid[name][:, 0].flatten(1)  # B Thw
    maps = features.maps[name][:, 0].flatten(1, -2).float()  # B Thw D
    total = maps.where(mask[..., None], 0.0).sum(1)  # B D
    return total / mask.sum(1, keepdim=True).clamp(min=1), mask.any(1)
