"""Multi-granularity contrastive learning of one feature (equations 2-6): pixels, objects, images.

The feature is one modality's map or the fused one; equation 6 is the sum over features, the
caller's. Student views of several sizes meet teacher views of one size, never a view itself. Every
loss is the mean over all valid places and frames of all such pairs in the global batch.

No level holds logits, see ``head_loss``. Rows of the pixel level at most B T (student cells) and B
T (student cells x teacher views); only places seen by both views make rows.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fusion.grids import resize_matrix
from models.fusion.sinkhorn import sinkhorn_many
from models.pretraining.losses.correspondence import match, sample
from models.pretraining.losses.dino import Centre, DinoSpec, Statistics
from models.pretraining.losses.head_loss import (
    Head,
    HeadTargets,
    compact,
    head_targets,
    mean_loss,
    paired_rows,
)
from models.reducer import Reducer

LEVELS = ("pixel", "object", "image")
ROUNDS = 3  # of moving the seeds of the objects to the cells assigned to them

Heads = Mapping[str, Head]  # "image", "dense"


class ViewMaps(NamedTuple):
    """One feature of all views of one size."""

    maps: Tensor  # B V T h w D
    valid: Tensor  # B V T h w bool
    affine: Tensor  # B V 2 3 float64: (u, v, 1) of the view -> place on the tile


@dataclass(frozen=True)
class GranularitySpec:
    """Settings of the loss at one step."""

    dino: DinoSpec = field(default_factory=DinoSpec)
    clusters: int = 16  # N_C of equation 3, at most
    cluster_epsilon: float = 0.05


@dataclass
class Granularity:
    """Losses of one feature (this rank's shares) and what the teacher did, by level."""

    losses: dict[str, Tensor]
    statistics: dict[str, Statistics]
    centres: dict[
        str, Tensor
    ]  # for ``Centre.update`` after an applied step; empty with Sinkhorn-Knopp

    @property
    def total(self) -> Tensor:
        """Equation 5."""
        return sum(self.losses.values())


class Matched(NamedTuple):
    """Cells of the student's views of one size with the teacher's features at the same place."""

    student: Tensor  # B Vs T h w D
    teacher: Tensor  # B Vs Vt T h w D float32, zero where masked
    mask: Tensor  # B Vs Vt T h w bool
    pairs: Tensor  # Vs Vt bool, which student view meets which teacher view
    most: int  # teacher views that one student view meets, at most


def multi_granularity(
    student: Mapping[str, ViewMaps],
    teacher: ViewMaps,
    student_heads: Heads,
    teacher_heads: Heads,
    spec: GranularitySpec,
    reducer: Reducer,
    centres: Mapping[str, Centre] | None = None,
    teacher_size: str = "global",
) -> Granularity:
    """Losses of one feature.

    ``student`` by view size, ``teacher`` of the size ``teacher_size``; views of that size are the
    same ones in both branches, so a pair of equal index is left out. T is the same everywhere:
    frame meets frame. ``centres``, one a level, replace Sinkhorn-Knopp. Where ``valid`` is False a
    map has no influence, whatever it holds. A level without any row on any rank gives zero with
    zero gradients. Collectives are called in a fixed order, whatever the rows.
    """
    matched = {size: _meet(views, teacher, size == teacher_size) for size, views in student.items()}

    def targets(level: str, head: str, rows: Tensor, mask: Tensor) -> HeadTargets:
        with torch.no_grad():
            return head_targets(
                *teacher_heads[head](rows),
                mask,
                spec.dino,
                reducer,
                None if centres is None else centres[level],
            )

    made = {
        "pixel": _pixel(matched.values(), student_heads["dense"], targets, spec, reducer),
        "object": _object(matched.values(), student_heads["dense"], targets, spec, reducer),
        "image": _image(student, teacher, matched, student_heads["image"], targets, spec, reducer),
    }
    return Granularity(
        losses={level: loss for level, (loss, _) in made.items()},
        statistics={level: found.statistics for level, (_, found) in made.items()},
        centres={
            level: found.centre for level, (_, found) in made.items() if found.centre is not None
        },
    )


def partner_views(
    student_views: int, teacher_views: int, same: bool, device: torch.device | None = None
) -> Tensor:
    """Which student view meets which teacher view: (Vs, Vt) bool, all but, if ``same``, each with
    itself."""
    everything = torch.ones(student_views, teacher_views, dtype=torch.bool, device=device)
    return everything.triu(1) | everything.tril(-1) if same else everything


def _meet(views: ViewMaps, teacher: ViewMaps, same: bool) -> Matched:
    """Teacher features at the student's cells; ``same``: both have the same views."""
    teacher_views = teacher.maps.shape[1]
    pairs = partner_views(views.maps.shape[1], teacher_views, same, teacher.maps.device)
    coords, inside = match(views.affine, teacher.affine, views.maps.shape[3:5])  # B Vs Vt h w (2)
    inside = inside & pairs[:, :, None, None]  # B Vs Vt h w
    features, mask = sample(teacher.maps, teacher.valid, coords, inside)
    return Matched(
        views.maps, features, mask & views.valid[:, :, None], pairs, max(1, teacher_views - same)
    )


def _pixel(
    matched: Iterable[Matched],
    head: Head,
    targets: Callable,
    spec: GranularitySpec,
    reducer: Reducer,
) -> tuple[Tensor, HeadTargets]:
    """Equation 2. A student cell goes through the head once, however many teacher views see its
    place."""
    rows, partner_rows, partners, count = [], [], [], 0
    for cells in matched:
        used = cells.mask.any(dim=2)  # B Vs T h w
        rows.append(cells.student[used])  # n D
        partner_rows.append(cells.teacher[cells.mask])  # p D
        number = (
            cells.mask.flatten().cumsum(0).view_as(cells.mask) - 1 + count
        )  # B Vs Vt T h w, row of each pair
        partners.append(
            compact(number.where(cells.mask, -1).movedim(2, -1)[used], cells.most)
        )  # n Vt
        count += partner_rows[-1].shape[0]
    partner_rows = torch.cat(partner_rows)  # pairs D
    found = targets("pixel", "dense", partner_rows, partner_rows.new_ones(count, dtype=torch.bool))
    return mean_loss(head, rows, found, partners, spec.dino.student_temperature, reducer), found


def _object(
    matched: Iterable[Matched],
    head: Head,
    targets: Callable,
    spec: GranularitySpec,
    reducer: Reducer,
) -> tuple[Tensor, HeadTargets]:
    """Equation 3 with one loss for each object of each pair and frame."""
    student_rows, teacher_rows = [], []
    for cells in matched:
        student_objects, teacher_objects, mask = objects(cells, spec)
        student_rows.append(student_objects[mask].flatten(0, 1))  # rows D
        teacher_rows.append(teacher_objects[mask].flatten(0, 1))  # rows D
    teacher_rows = torch.cat(teacher_rows)  # rows D
    own = torch.arange(teacher_rows.shape[0], device=teacher_rows.device)  # rows
    found = targets("object", "dense", teacher_rows, torch.ones_like(own, dtype=torch.bool))
    student_rows = torch.cat(student_rows)  # rows D
    return mean_loss(
        head, [student_rows], found, [own[:, None]], spec.dino.student_temperature, reducer
    ), found


def _image(
    student: Mapping[str, ViewMaps],
    teacher: ViewMaps,
    matched: Mapping[str, Matched],
    head: Head,
    targets: Callable,
    spec: GranularitySpec,
    reducer: Reducer,
) -> tuple[Tensor, HeadTargets]:
    """Equation 4. A teacher view's targets are made once for all its partners."""
    pooled, present = average(teacher.maps, teacher.valid)  # B Vt T (D)
    found = targets("image", "image", pooled.flatten(0, 2), present.flatten())
    rows, partners = [], []
    for size, views in student.items():
        pooled, mask = average(views.maps, views.valid)  # B Vs T (D)
        rows.append(pooled.flatten(0, 2))  # n D
        partners.append(
            compact(paired_rows(matched[size].pairs, mask, present), matched[size].most)
        )  # n Vt
    return mean_loss(head, rows, found, partners, spec.dino.student_temperature, reducer), found


def average(maps: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the valid cells: (..., h, w, D), (..., h, w) bool -> (..., D) float32 and whether
    there are any."""
    total = maps.float().where(valid[..., None], 0.0).sum(dim=(-3, -2))  # ... D
    count = valid.sum(dim=(-2, -1))  # ...
    return total / count.clamp(min=1)[..., None], count > 0


def objects(cells: Matched, spec: GranularitySpec) -> tuple[Tensor, Tensor, Tensor]:
    """Objects of every pair of views and frame: clusters of the matched cells by the teacher's
    features.

    The same cells, with the same shares, make an object in both branches, so that student and
    teacher describe the same ground. Returns student and teacher objects (B, Vs, Vt, T, C, D)
    float32 and the mask (B, Vs, Vt, T) bool. C is ``clusters``, or a quarter of the cells if that
    is less; a pair with fewer matched cells than C has none.
    """
    height, width = cells.mask.shape[-2:]
    clusters = min(spec.clusters, max(1, height * width // 4))
    mask = cells.mask.flatten(-2)  # B Vs Vt T n
    teacher = cells.teacher.flatten(-3, -2).where(mask[..., None], 0.0)  # B Vs Vt T n D
    shares = _assign(
        teacher, mask, _seed_matrix(height, width, clusters, teacher.device), spec
    )  # B Vs Vt T n C
    shares = (
        shares / shares.sum(dim=-2, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    ).mT  # ... T C n
    # the student's cells do not depend on the teacher view: views and clusters are rows of one
    # product
    used = mask.any(dim=2)  # B Vs T n
    student = cells.student.flatten(-3, -2).float().where(used[..., None], 0.0)  # B Vs T n D
    stacked = shares.transpose(2, 3).flatten(3, 4) @ student  # B Vs T VtC D
    student_objects = stacked.unflatten(3, (-1, clusters)).transpose(2, 3)  # B Vs Vt T C D
    return student_objects, shares @ teacher, mask.sum(dim=-1) >= clusters


@torch.no_grad()
def _assign(teacher: Tensor, mask: Tensor, seed_matrix: Tensor, spec: GranularitySpec) -> Tensor:
    """Shares (..., n, C) of the cells in the objects; features (..., n, D) are zero where masked."""
    directions = F.normalize(teacher, dim=-1)  # ... n D
    seeds = F.normalize(seed_matrix @ teacher, dim=-1)  # ... C D
    shares = sinkhorn_many(
        directions @ seeds.mT, mask, spec.cluster_epsilon, spec.dino.iterations
    )  # ... n C
    for _ in range(ROUNDS):
        seeds = F.normalize(shares.mT @ teacher, dim=-1)  # ... C D
        shares = sinkhorn_many(
            directions @ seeds.mT, mask, spec.cluster_epsilon, spec.dino.iterations
        )
    return shares


def _seed_matrix(height: int, width: int, clusters: int, device: torch.device) -> Tensor:
    """Weights (C, h w) that pool a grid to C seeds, evenly spaced: rows x columns = C, as square as
    C allows."""
    rows = max(divisor for divisor in range(1, math.isqrt(clusters) + 1) if clusters % divisor == 0)
    return torch.kron(
        resize_matrix(height, rows, device), resize_matrix(width, clusters // rows, device)
    )
