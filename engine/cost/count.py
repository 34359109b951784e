"""What one training step costs in matrix-multiply FLOPs, pass by pass, from a run's settings alone.

Each pass is counted by ``models/count/flops.py`` for a batch of one sample with every modality and
frame. How many rows the pixel and object levels send through the heads depends on how views
overlap: it is the mean over samples whose views are drawn as training draws them.
"""

from dataclasses import dataclass

import numpy as np
import torch

from data.seeded import generator
from data.stream.settings import ViewSettings
from data.stream.views import affine, draw_views
from data.tiles.classes import NAMES
from engine.config.settings import Settings
from models.count.flops import (
    TEACHER,
    Cost,
    Rows,
    ViewSize,
    losses,
    map_sides,
    pretraining,
    recomputed,
)
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
    heads: (
        float  # forward: heads of both models, losses, text projection, update of the geo context
    )
    backward: float  # of the student, its heads and the losses
    # what is computed again to save memory: by the head loss, by activation checkpointing
    recomputation: float

    @property
    def model(self) -> float:
        """What the step needs, however it is run: the numerator of model FLOPs utilisation."""
        return self.student_forward + self.teacher_forward + self.heads + self.backward

    @property
    def hardware(self) -> float:
        """What the device computes, but for empty slots of the experts' buffers."""
        return self.model + self.recomputation


@dataclass(frozen=True)
class StepCosts:
    """Every entry of one step, per sample."""

    forward: list[Cost]  # of one model over all views
    losses: list[Cost]  # heads of both models and all losses

    @property
    def flops(self) -> StepFlops:
        """The sums by pass."""
        forward = sum(cost.flops for cost in self.forward)
        return StepFlops(
            student_forward=forward,
            teacher_forward=forward,
            heads=sum(cost.flops for cost in self.losses),
            backward=sum(cost.backward for cost in self.forward + self.losses),
            recomputation=sum(cost.recomputed for cost in self.forward + self.losses),
        )


def step_flops(settings: Settings) -> StepFlops:
    """FLOPs of one training step per sample, with every modality present and nothing dropped."""
    return step_costs(settings).flops


def step_costs(settings: Settings, samples: int = SAMPLES) -> StepCosts:
    """All entries, with the mean rows of ``samples`` samples."""
    sizes = view_sizes(settings.data.views)
    rows = expected_rows(settings, samples)
    iterations = settings.loss.sinkhorn_iterations if settings.loss.centring == "sinkhorn" else 0
    return StepCosts(
        forward=recomputed(settings.model, pretraining(settings.model, sizes), settings.recompute),
        losses=losses(settings.model, sizes, rows, settings.loss.clusters, len(NAMES), iterations),
    )


def view_sizes(views: ViewSettings) -> dict[str, ViewSize]:
    """Number and side of the views by size."""
    return {name: ViewSize(size.count, size.cells) for name, size in views.sizes.items()}


def expected_rows(settings: Settings, samples: int = SAMPLES) -> dict[str, dict[str, Rows]]:
    """Feature -> view size -> mean rows of a sample on a full tile without gaps, views drawn with
    the run's seed."""
    model, views = settings.model, settings.data.views
    frames = {name: modality.frames for name, modality in model.modalities.items()} | {FUSED: 1}
    drawn = [
        draw_views(generator(settings.seed, f"sample {i}", 0, "views"), TILE_CELLS, views)
        for i in range(samples)
    ]
    sizes = view_sizes(views)
    affines = {
        size: torch.from_numpy(np.array([[affine(view) for view in one[size]] for one in drawn]))
        for size in sizes
    }  # samples V 2 3
    rows = {feature: {} for feature in frames}
    for size, (count, cells) in sizes.items():
        partners = partner_views(count, sizes[TEACHER].views, same=size == TEACHER)  # Vs Vt
        for feature, side in map_sides(model, cells).items():
            _, inside = match(affines[size], affines[TEACHER], (side, side))
            met = inside & partners[:, :, None, None]  # samples Vs Vt h w
            objects = cluster_count(settings.loss.clusters, side**2)
            pairs = met.sum(dim=(3, 4))  # samples Vs Vt
            totals = (met.any(dim=2).sum(), pairs.sum(), objects * (pairs >= objects).sum())
            rows[feature][size] = Rows(
                *(frames[feature] * int(total) / samples for total in totals)
            )
    return rows
