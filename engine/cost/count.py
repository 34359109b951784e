"""FLOPs of the matrix products of one training step, pass by pass, from a run's settings alone.

Each pass is counted by ``models/count`` for a batch of one sample with every modality and frame.
How many rows the pixel and object levels send through the heads depends on how views overlap: it is
the mean over samples whose views are drawn as training draws them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.seeded import generator
from data.stream.settings import ViewSettings
from data.stream.views import affine, draw_views
from data.tiles.classes import NAMES
from engine.config.settings import Settings
from models.count.cost import TEACHER, Cost, ViewSize, Workload, add_up, map_sides, recomputed
from models.count.losses import LossSizes, Rows, losses
from models.count.trunk import pretraining
from models.features import FUSED
from models.pretraining.losses.clusters import cluster_count
from models.pretraining.losses.correspondence import match
from models.pretraining.losses.multi_granularity import partner_views

SAMPLES = 512  # whose views are drawn
TILE_CELLS = 64  # side of a full tile
GIGA = 1e9
PASSES = {
    "student_forward": "student forward",
    "teacher_forward": "teacher forward",
    "heads": "heads and losses",
    "backward": "backward",
    "recomputation": "recomputation",
}


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one training step per sample: matrix products, a multiply-add counts as two."""

    student_forward: float  # trunk and query decoder over all views
    teacher_forward: float  # the same: the teacher sees all views too
    heads: float  # forward: both models' heads, losses, text projection, update of the geo context
    backward: float  # of the student, its heads and the losses
    # what is computed again to save memory: by the head loss, by activation checkpointing
    recomputation: float

    @property
    def model(self) -> float:
        """What the step needs, however it runs: the numerator of model FLOPs utilisation."""
        return self.student_forward + self.teacher_forward + self.heads + self.backward

    @property
    def hardware(self) -> float:
        """What the device computes, except for empty slots of the experts' buffers."""
        return self.model + self.recomputation


@dataclass(frozen=True)
class StepCosts:
    """All costs of one step, per sample."""

    forward: list[Cost]  # of one model over all views
    losses: list[Cost]  # heads of both models and all losses

    @property
    def flops(self) -> StepFlops:
        """The sums by pass."""
        forward = add_up(self.forward)
        student = add_up(self.forward + self.losses)
        return StepFlops(
            student_forward=forward.flops,
            teacher_forward=forward.flops,
            heads=add_up(self.losses).flops,
            backward=student.backward,
            recomputation=student.recomputed,
        )


def step_flops(settings: Settings) -> StepFlops:
    """FLOPs of one training step per sample, with every modality present and nothing dropped."""
    return step_costs(settings).flops


def step_costs(settings: Settings, samples: int = SAMPLES) -> StepCosts:
    """All costs of one step.

    Args:
        settings: of the run.
        samples: whose views are drawn for the mean number of rows.
    """
    work = workload(settings)
    iterations = 0
    if settings.loss.centring == "sinkhorn":
        iterations = settings.loss.sinkhorn_iterations
    sizes = LossSizes(settings.loss.clusters, classes=len(NAMES), iterations=iterations)
    return StepCosts(
        forward=recomputed(settings.model, pretraining(work), settings.recompute),
        losses=losses(work, expected_rows(settings, samples), sizes),
    )


def workload(settings: Settings) -> Workload:
    """The model of a run and the views of one sample."""
    return Workload(settings.model, view_sizes(settings.data.views))


def view_sizes(views: ViewSettings) -> dict[str, ViewSize]:
    """Number and sides of the views by size."""
    return {name: ViewSize(size.count, size.pixels) for name, size in views.sizes.items()}


def expected_rows(settings: Settings, samples: int = SAMPLES) -> dict[str, dict[str, Rows]]:
    """Mean rows of a sample on a full tile without gaps; views are drawn with the run's seed.

    Returns:
        feature -> view size -> rows.
    """
    sizes = view_sizes(settings.data.views)
    affines = _drawn_affines(settings, samples)
    frames = {FUSED: 1}
    for name, modality in settings.model.modalities.items():
        frames[name] = modality.frames
    rows: dict[str, dict[str, Rows]] = {}
    for size, (count, pixels) in sizes.items():
        pairs = partner_views(count, sizes[TEACHER].views, same=size == TEACHER)  # Vs Vt
        for feature, side in map_sides(settings.model, pixels).items():
            places = match(affines[size], affines[TEACHER], (side, side))
            inside = places.inside & pairs[:, :, None, None]  # samples Vs Vt h w
            objects = cluster_count(settings.loss.clusters, side**2)
            cells_of_pair = inside.sum(dim=(3, 4))  # samples Vs Vt
            with_objects = (cells_of_pair >= objects).sum()
            rows.setdefault(feature, {})[size] = Rows(
                pixel=frames[feature] * int(inside.any(dim=2).sum()) / samples,
                pairs=frames[feature] * int(cells_of_pair.sum()) / samples,
                objects=frames[feature] * int(objects * with_objects) / samples,
            )
    return rows


def _drawn_affines(settings: Settings, samples: int) -> dict[str, Tensor]:
    """View size -> affines (samples, V, 2, 3) of drawn views."""
    affines: dict[str, list[list[np.ndarray]]] = {}
    for index in range(samples):
        source = generator(settings.seed, f"sample {index}", 0, "views")
        for size, views in draw_views(source, TILE_CELLS, settings.data.views).items():
            affines.setdefault(size, []).append([affine(view) for view in views])
    return {size: torch.from_numpy(np.array(drawn)) for size, drawn in affines.items()}
