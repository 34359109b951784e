"""What a cost is: the FLOPs of one module on the images of one modality in the views of one size.

Only matrix products count. The product of an (m, k) and a (k, n) matrix is 2 m k n FLOPs: a
multiply-add counts as two. Norms, softmax, activations, sampling and look-ups count nothing.

Counters of libraries need a running model, and they count Triton kernels as zero. So the costs here
follow from sizes alone; they agree to the last digit with ``torch.utils.flop_counter`` where
attention is not fused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from models.errors import ModelError
from models.features import FUSED
from models.packing import Group
from models.recompute import BLOCKS, WINDOWS
from models.spec import FusionSpec, ModelSpec

SHARED = "shared"  # modality or view of what is computed once for all
TEACHER = "global"  # size of the views that the teacher of the multi-granularity losses sees
MLP_RATIO = 4  # of fusion and query decoder, whatever that of the backbone is


class ViewSize(NamedTuple):
    """The views of one size."""

    views: int
    pixels: Mapping[str, int]  # along a side, by modality


@dataclass(frozen=True)
class Workload:
    """A model and the views of one call. Every modality and frame is present."""

    spec: ModelSpec
    sizes: Mapping[str, ViewSize]
    batch: int = 1

    @property
    def fusion(self) -> FusionSpec:
        """The fusion transformer. Raises ModelError for a model without one."""
        if self.spec.fusion is None:
            raise ModelError("flops: expected a model with a fusion transformer, found none")
        return self.spec.fusion

    def fusion_side(self, size: str) -> int:
        """Cells along a side of the fusion grid of the views of a size."""
        return map_sides(self.spec, self.sizes[size].pixels)[FUSED]


@dataclass(frozen=True)
class Cost:
    """FLOPs of one module on the images of one modality in the views of one size."""

    module: str
    modality: str  # of the specification, "fused", or "shared"
    view: str  # size of the views, or "shared"
    flops: float  # forward
    gradients: int = 2  # factors of the products that get a gradient: 2 as a rule, 0 in the teacher
    # computed again to save memory, by activation checkpointing or by the head loss
    recomputed: float = 0.0

    @property
    def backward(self) -> float:
        """Each gradient of a product is a product of the same size."""
        return self.gradients * self.flops


@dataclass
class Totals:
    """Sums over costs."""

    flops: float = 0
    backward: float = 0
    recomputed: float = 0


def add_up(costs: Iterable[Cost]) -> Totals:
    """Sum forward, backward and recomputation."""
    totals = Totals()
    for cost in costs:
        totals.flops += cost.flops
        totals.backward += cost.backward
        totals.recomputed += cost.recomputed
    return totals


def of_images(costs: Iterable[Cost], view: str, modality: str) -> list[Cost]:
    """The costs of one modality in the views of one size."""
    return [cost for cost in costs if (cost.view, cost.modality) == (view, modality)]


def joined(costs: Iterable[Cost]) -> list[Cost]:
    """Add up costs that differ in their FLOPs alone; leave out empty ones."""
    sums: dict[tuple[str, str, str, int], Cost] = {}
    for cost in costs:
        key = (cost.module, cost.modality, cost.view, cost.gradients)
        before = sums.get(key, replace(cost, flops=0, recomputed=0.0))
        sums[key] = replace(
            before,
            flops=before.flops + cost.flops,
            recomputed=before.recomputed + cost.recomputed,
        )
    return [cost for cost in sums.values() if cost.flops]


def recomputed(spec: ModelSpec, costs: Iterable[Cost], policy: str) -> list[Cost]:
    """Keep only the recomputation that a policy asks for.

    The costs of ``trunk`` say what the policy "blocks" computes again. The policy "pointwise"
    computes no product again.

    Args:
        spec: of the model.
        costs: of its forward pass.
        policy: one of ``models.recompute.POLICIES``.
    """
    windows = tuple(f"stage {index + 1} " for index in range(spec.window_stages))
    kept = []
    for cost in costs:
        again = policy == BLOCKS or (policy == WINDOWS and cost.module.startswith(windows))
        kept.append(cost if again else replace(cost, recomputed=0.0))
    return kept


def merged(spec: ModelSpec, index: int, group: Group) -> Group:
    """The group after merging number ``index``."""
    if not spec.modalities[group.modality].merge[index]:
        return group
    return replace(group, height=(group.height + 1) // 2, width=(group.width + 1) // 2)


def map_sides(spec: ModelSpec, pixels: Mapping[str, int]) -> dict[str, int]:
    """Cells along a side of the last map of each feature.

    Args:
        spec: of the model.
        pixels: along a side of the view, by modality.
    """
    sides = {}
    for name in spec.modalities:
        side = pixels[name] // spec.patch
        group = Group(name, view="", images=1, height=side, width=side)
        for index in range(3):
            group = merged(spec, index, group)
        sides[name] = group.height
    if spec.fusion is not None:
        sides[FUSED] = spec.fusion.cells_per_token * min(sides.values())
    return sides
