"""One typed description of a SkySense V2 model, from the small demo to the 2.8-billion-parameter
original.

Shape letters of the whole project: ``B`` samples, ``V`` views, ``T`` frames, ``N`` tokens, ``D``
channels, ``K`` prototypes or classes, ``E`` experts, ``G`` fusion cells, ``R`` regions, ``P``
prototypes a region.
"""

from dataclasses import dataclass, field, replace

from models.errors import ModelError

CELL_METRES = 10.0  # the ground grid every view is cut on; one multispectral or SAR pixel


@dataclass(frozen=True)
class ModalitySpec:
    """What the model must know of one sensor."""

    bands: int
    frames: int  # drawn from the series of a sample (supplement, section C)
    pixels_per_cell: int  # pixels along one 10 m cell: 32 for 0.3125 m optical, 1 for Sentinel
    merge: tuple[
        bool, bool, bool
    ]  # adaptive patch merging after stages 1-3: True halves the grid (table 8)
    position_grids: tuple[
        int, int
    ]  # native side of the position tables at the entry of stages 3 and 4


@dataclass(frozen=True)
class MoESpec:
    """Mixture of experts in the feed-forward network of chosen blocks (supplement, F.5)."""

    blocks: tuple[int, ...] = (18, 19, 20, 21, 22, 23)  # counted over all stages
    experts: int = 8
    capacity_factor: float = 1.25  # slots an expert = factor x tokens / experts; <= 0 drops nothing
    min_capacity: int = 4
    # or "tutel": its dispatch kernels inside DeepSpeed's layer; or "grouped":
    # models/moe/experts.py, for ep_size 1
    implementation: str = "deepspeed"
    fixed_gate: bool = False  # the gate keeps its first values (table 14)


@dataclass(frozen=True)
class FusionSpec:
    """Multi-modal temporal fusion transformer."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    cell_metres: float = 20.0  # fusion grid: 40, 20 or 10 m


@dataclass(frozen=True)
class ContextSpec:
    """Geo-context prototypes, equations 8-10."""

    regions: int = 4096
    prototypes: int = 100
    width: int = 512
    momentum: float = 0.99
    epsilon: float = 0.05
    iterations: int = 3


@dataclass(frozen=True)
class HeadSpec:
    """Projection head of the DINO loss."""

    layers: int = 3
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65536


@dataclass(frozen=True)
class ModelSpec:
    """Every size of the model. The defaults are SkySense V2 itself (PAPER table 6)."""

    modalities: dict[str, ModalitySpec] = field(
        default_factory=lambda: {
            "hr": ModalitySpec(
                bands=3, frames=1, pixels_per_cell=32, merge=(True,) * 3, position_grids=(14, 7)
            ),
            "ms": ModalitySpec(
                bands=10, frames=20, pixels_per_cell=1, merge=(False,) * 3, position_grids=(16, 16)
            ),
            "sar": ModalitySpec(
                bands=2, frames=10, pixels_per_cell=1, merge=(False,) * 3, position_grids=(16, 16)
            ),
        }
    )
    patch: int = 4
    widths: tuple[int, ...] = (352, 704, 1408, 2816)
    depths: tuple[int, ...] = (2, 2, 18, 2)
    window_stages: int = 2  # the first stages are Swin V2, the rest plain transformer
    head_dim: int = 32
    mlp_ratio: int = 4
    window: int = 8
    prompts: tuple[int, ...] = (0, 0, 4, 4)  # learnable tokens a modality, by stage
    # share of the images that each block leaves out in training
    # (models/backbone/stochastic_depth.py); the supplement has 0.2 in its fine-tuning, and none in
    # pre-training
    drop_path: float = 0.0
    moe: MoESpec | None = field(default_factory=MoESpec)
    fusion: FusionSpec | None = field(default_factory=FusionSpec)
    context: ContextSpec | None = field(default_factory=ContextSpec)
    head: HeadSpec = field(default_factory=HeadSpec)
    queries: int = 16
    text_width: int = 1024

    def __post_init__(self):
        problem = self.problem()
        if problem:
            raise ModelError(problem)

    def problem(self) -> str | None:
        """One line saying what makes this specification impossible, or None."""
        if not len(self.widths) == len(self.depths) == len(self.prompts) == 4:
            return "model: widths, depths and prompts need 4 entries each, one a stage"
        for width in self.widths:
            if width % self.head_dim:
                return f"model.widths: {width} is not a multiple of head_dim {self.head_dim}"
        fusion = self.fusion
        if fusion is None and self.context is not None:
            return "model.context: expected a model with fusion, whose output it extends, found none; set it to null"
        if fusion is not None and fusion.width % fusion.heads:
            return f"model.fusion: width {fusion.width} is not a multiple of heads {fusion.heads}"
        if fusion is not None and fusion.cell_metres not in (10.0, 20.0, 40.0):
            return f"model.fusion.cell_metres: {fusion.cell_metres} is not one of 10, 20, 40"
        if not 0 <= self.drop_path < 1:
            return f"model.drop_path: expected a share from 0 to below 1, found {self.drop_path}"
        if any(self.prompts[: self.window_stages]):
            return "model.prompts: window stages take no prompts, expected 0 there"
        if self.moe is not None:
            blocks = sum(self.depths)
            for block in self.moe.blocks:
                if not 0 <= block < blocks:
                    return (
                        f"model.moe.blocks: {block} is outside the {blocks} blocks of the backbone"
                    )
            if self.moe.implementation not in ("deepspeed", "tutel", "grouped"):
                return f"model.moe.implementation: {self.moe.implementation!r} is not 'deepspeed', 'tutel' or 'grouped'"
        return None

    @property
    def fused_width(self) -> int:
        """Channels of the fused map: fusion output with the geo context behind it. 0 without
        fusion."""
        return sum(part.width for part in (self.fusion, self.context) if part is not None)

    def variant(self, **changes) -> "ModelSpec":
        """A copy with some fields replaced."""
        return replace(self, **changes)

    @classmethod
    def skysense_v2(cls) -> "ModelSpec":
        """The paper's model."""
        return cls()
