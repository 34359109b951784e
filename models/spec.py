"""One typed description of a SkySense V2 model, from the small demo to the paper's.

Shape letters of the whole project: ``B`` samples, ``V`` views, ``T`` frames, ``N`` tokens, ``D``
channels, ``K`` prototypes or classes, ``E`` experts, ``G`` fusion cells, ``R`` regions, ``P``
prototypes a region.
"""

import itertools
from dataclasses import dataclass, field, replace

from models.errors import ModelError

STAGES = 4

# Who moves the tokens to their experts and back.
DEEPSPEED = "deepspeed"  # DeepSpeed's layer
TUTEL = "tutel"  # DeepSpeed's layer with Tutel's dispatch kernels
GROUPED = "grouped"  # models/moe/experts.py; needs all experts on every rank (ep_size 1)
MOE_IMPLEMENTATIONS = (DEEPSPEED, TUTEL, GROUPED)


@dataclass(frozen=True)
class ModalitySpec:
    """What the model must know of one sensor."""

    bands: int
    # drawn from the series of a sample (supplement, section C)
    frames: int
    # adaptive patch merging after stages 1 to 3: True halves the grid (table 8)
    merge: tuple[bool, bool, bool]
    # native side of the position tables at the entry of stages 3 and 4
    position_grids: tuple[int, int]


@dataclass(frozen=True)
class MoESpec:
    """Mixture of experts (MoE) in the feed-forward network of some blocks (supplement, F.5)."""

    blocks: tuple[int, ...] = (18, 19, 20, 21, 22, 23)  # counted over all stages
    experts: int = 8
    # slots of an expert = factor x tokens / experts; 0 or less: no token is dropped
    capacity_factor: float = 1.25
    min_capacity: int = 4
    implementation: str = DEEPSPEED  # one of MOE_IMPLEMENTATIONS
    fixed_gate: bool = False  # the gate keeps its first values (table 14)


@dataclass(frozen=True)
class FusionSpec:
    """Multi-modal temporal fusion transformer."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    # Fusion cells along a side of a token of the coarsest map among the modalities of a view. With
    # 1 that map needs no resizing, and the finer ones are averaged.
    cells_per_token: int = 1


@dataclass(frozen=True)
class ContextSpec:
    """Geo-context prototypes, equations 8-10."""

    regions: int = 4096
    prototypes: int = 100
    width: int = 512
    momentum: float = 0.99
    epsilon: float = 0.05
    iterations: int = 3
    # Probability that the student does not read the context of a sample. The region alone tells log
    # R of the log K nats of a target, and most places have no region in later use.
    drop: float = 0.5


@dataclass(frozen=True)
class HeadSpec:
    """Projection head of the DINO loss."""

    layers: int = 3
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 65536


def _paper_modalities() -> dict[str, ModalitySpec]:
    """High-resolution optical, Sentinel-2 and Sentinel-1."""
    return {
        "hr": ModalitySpec(
            bands=3,
            frames=1,
            merge=(True, True, True),
            position_grids=(14, 7),
        ),
        "ms": ModalitySpec(
            bands=10,
            frames=20,
            merge=(False, False, False),
            position_grids=(16, 16),
        ),
        "sar": ModalitySpec(
            bands=2,
            frames=10,
            merge=(False, False, False),
            position_grids=(16, 16),
        ),
    }


@dataclass(frozen=True)
class ModelSpec:
    """Every size of the model. The defaults are SkySense V2 itself (PAPER table 6).

    Raises:
        ModelError: The sizes do not fit each other.
    """

    modalities: dict[str, ModalitySpec] = field(default_factory=_paper_modalities)
    patch: int = 4
    widths: tuple[int, ...] = (352, 704, 1408, 2816)  # by stage
    depths: tuple[int, ...] = (2, 2, 18, 2)  # by stage
    window_stages: int = 2  # the first stages are Swin V2, the rest plain transformer
    head_dim: int = 32
    mlp_ratio: int = 4
    window: int = 8
    prompts: tuple[int, ...] = (0, 0, 4, 4)  # learnable tokens of a modality, by stage
    # Share of the images that each block leaves out in training
    # (models/backbone/stochastic_depth.py). The supplement has 0.2 in its fine-tuning and none in
    # pre-training.
    drop_path: float = 0.0
    # Standard deviation of the first matrices (models/initialise.py). None: 1 / sqrt(inputs) of
    # each. 0.02 is that of 2500 inputs; narrow models learn slowly from it.
    initial_std: float | None = 0.02
    moe: MoESpec | None = field(default_factory=MoESpec)
    fusion: FusionSpec | None = field(default_factory=FusionSpec)
    context: ContextSpec | None = field(default_factory=ContextSpec)
    head: HeadSpec = field(default_factory=HeadSpec)
    queries: int = 16
    text_width: int = 1024

    def __post_init__(self):
        problem = self.problem()
        if problem is not None:
            raise ModelError(problem)

    def problem(self) -> str | None:
        """One line that says what makes this specification impossible, or None."""
        for check in (self._backbone_problem, self._fusion_problem, self._moe_problem):
            problem = check()
            if problem is not None:
                return problem
        return None

    def _backbone_problem(self) -> str | None:
        by_stage = (self.widths, self.depths, self.prompts)
        if any(len(numbers) != STAGES for numbers in by_stage):
            return f"model: widths, depths and prompts need {STAGES} entries each, one a stage"
        for width in self.widths:
            if width % self.head_dim:
                return f"model.widths: {width} is not a multiple of head_dim {self.head_dim}"
        for width, next_width in itertools.pairwise(self.widths):
            if next_width != 2 * width:
                return (
                    "model.widths: expected each stage to be twice as wide as the one before, "
                    f"found {width} and then {next_width}; write {2 * width}"
                )
        if any(self.prompts[: self.window_stages]):
            return "model.prompts: window stages take no prompts, expected 0 there"
        if not 0 <= self.drop_path < 1:
            return f"model.drop_path: expected a share from 0 to below 1, found {self.drop_path}"
        if self.initial_std is not None and self.initial_std <= 0:
            return (
                "model.initial_std: expected a number above 0, or null for 1 / sqrt(inputs), "
                f"found {self.initial_std}"
            )
        return None

    def _fusion_problem(self) -> str | None:
        fusion = self.fusion
        if fusion is None:
            if self.context is None:
                return None
            return (
                "model.context: expected a model with fusion, whose output it extends, found none; "
                "set it to null"
            )
        if self.context is not None and not 0 <= self.context.drop <= 1:
            return f"model.context.drop: expected a share from 0 to 1, found {self.context.drop}"
        if fusion.width % fusion.heads:
            return f"model.fusion: width {fusion.width} is not a multiple of heads {fusion.heads}"
        if fusion.cells_per_token < 1:
            return (
                "model.fusion.cells_per_token: expected 1 or more fusion cells along a side of a "
                f"token, found {fusion.cells_per_token}"
            )
        return None

    def _moe_problem(self) -> str | None:
        moe = self.moe
        if moe is None:
            return None
        blocks = sum(self.depths)
        for block in moe.blocks:
            if not 0 <= block < blocks:
                return f"model.moe.blocks: {block} is outside the {blocks} blocks of the backbone"
        if moe.implementation not in MOE_IMPLEMENTATIONS:
            return (
                f"model.moe.implementation: {moe.implementation!r} is not 'deepspeed', 'tutel' or "
                "'grouped'"
            )
        return None

    @property
    def fused_width(self) -> int:
        """Channels of the fused map: fusion output, then geo context. 0 without fusion."""
        width = 0
        if self.fusion is not None:
            width += self.fusion.width
        if self.context is not None:
            width += self.context.width
        return width

    def variant(self, **changes) -> "ModelSpec":
        """A copy with some fields replaced."""
        return replace(self, **changes)

    @classmethod
    def skysense_v2(cls) -> "ModelSpec":
        """The paper's model."""
        return cls()
