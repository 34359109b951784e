"""Multi-granularity contrastive learning of one feature (equations 2-6): pixels, objects, images.

The feature is the map of one modality or the fused map; the caller sums over features (equation 6).
Student views of several sizes are paired with teacher views of one size, but never a view with
itself. Every loss is the mean over the valid places and frames of a pair, as the equations read,
and then the mean over all such pairs in the global batch: a large view counts as much as a small
one, and a series of 20 frames as much as a single image.

No level stores logits, see ``head_loss``. The pixel level has at most B T (student cells) rows for
the student and B T (student cells x teacher views) for the teacher: only places that both views
show become rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from models.pretraining.losses.clusters import ClusterSpec, cluster, spread
from models.pretraining.losses.correspondence import match, sample
from models.pretraining.losses.dino import Centre, DinoSpec, Statistics
from models.pretraining.losses.head_loss import Head, Partners, compact, mean_loss, paired_rows
from models.pretraining.losses.targets import HeadTargets, head_targets
from models.reducer import Reducer

LEVELS = ("pixel", "object", "image")
HEAD_OF_LEVEL = {"pixel": "dense", "object": "dense", "image": "image"}

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
    """Losses of one feature (this rank's shares) and statistics of the teacher, by level."""

    losses: dict[str, Tensor]
    statistics: dict[str, Statistics]
    # For ``Centre.update`` after an applied step; empty with Sinkhorn-Knopp.
    centres: dict[str, Tensor]
    object_spread: Tensor  # () mean ``clusters.spread`` over the global batch

    @property
    def total(self) -> Tensor:
        """Sum over the levels, equation 5."""
        return self.losses["pixel"] + self.losses["object"] + self.losses["image"]


class Matched(NamedTuple):
    """Cells of the student's views of one size with the teacher's features at the same places."""

    student: Tensor  # B Vs T h w D
    teacher: Tensor  # B Vs Vt T h w D float32, zero where masked
    mask: Tensor  # B Vs Vt T h w bool
    pairs: Tensor  # Vs Vt bool, which student view is paired with which teacher view
    most: int  # teacher views that one student view is paired with, at most


@dataclass(frozen=True)
class _Contrast:
    """What all levels share: heads, settings, collectives and centres."""

    student_heads: Heads
    teacher_heads: Heads
    spec: GranularitySpec
    reducer: Reducer
    centres: Mapping[str, Centre] | None

    @torch.no_grad()
    def targets(self, level: str, rows: Tensor, mask: Tensor) -> HeadTargets:
        """The teacher's targets for rows (N, D) where ``mask`` (N,)."""
        features, prototypes = self.teacher_heads[HEAD_OF_LEVEL[level]](rows)
        centre = None
        if self.centres is not None:
            centre = self.centres[level]
        return head_targets(
            features,
            prototypes,
            mask=mask,
            spec=self.spec.dino,
            reducer=self.reducer,
            centre=centre,
        )

    def loss(
        self, level: str, rows: list[Tensor], *, targets: HeadTargets, partners: list[Partners]
    ) -> Tensor:
        """This rank's share of the mean loss; ``rows`` and ``partners`` as in ``mean_loss``."""
        return mean_loss(
            self.student_heads[HEAD_OF_LEVEL[level]],
            rows,
            targets=targets,
            partners=partners,
            temperature=self.spec.dino.student_temperature,
            reducer=self.reducer,
        )


def multi_granularity(
    student: Mapping[str, ViewMaps],
    teacher: ViewMaps,
    *,
    student_heads: Heads,
    teacher_heads: Heads,
    spec: GranularitySpec,
    reducer: Reducer,
    centres: Mapping[str, Centre] | None = None,
    teacher_size: str = "global",
) -> Granularity:
    """Losses of one feature at all levels.

    T is the same everywhere: a frame is paired with the same frame. Where ``valid`` is False a map
    has no influence, even if NaN. A level without a row on any rank gives zero with zero gradients.
    Collectives are called in a fixed order, whatever the rows.

    Args:
        student: the student's maps by view size.
        teacher: the teacher's maps of the views of ``teacher_size``.
        student_heads: projection heads by name, "image" and "dense".
        teacher_heads: the teacher's.
        spec: settings.
        reducer: collectives over the global batch.
        centres: one a level; they replace Sinkhorn-Knopp.
        teacher_size: views of this size are the same ones in both branches, so a pair of equal
            index is left out.
    """
    contrast = _Contrast(
        student_heads=student_heads,
        teacher_heads=teacher_heads,
        spec=spec,
        reducer=reducer,
        centres=centres,
    )
    matched = {}
    for size, views in student.items():
        matched[size] = _match_views(views, teacher, same=size == teacher_size)
    pixel = _pixel(contrast, matched.values())
    object_loss, object_targets, object_spread = _object(contrast, matched.values())
    image = _image(contrast, student, teacher, matched)
    levels = {"pixel": pixel, "object": (object_loss, object_targets), "image": image}
    result = Granularity({}, {}, {}, object_spread)
    for level, (loss, targets) in levels.items():
        result.losses[level] = loss
        result.statistics[level] = targets.statistics
        if targets.centre is not None:
            result.centres[level] = targets.centre
    return result


def partner_views(
    student_views: int, teacher_views: int, *, same: bool, device: torch.device | None = None
) -> Tensor:
    """Which student view is paired with which teacher view.

    Args:
        student_views: number of student views Vs.
        teacher_views: number of teacher views Vt.
        same: whether both have the same views; then none is paired with itself.
        device: of the result.

    Returns:
        (Vs, Vt) bool.
    """
    pairs = torch.ones(student_views, teacher_views, dtype=torch.bool, device=device)
    if same:
        return pairs.triu(1) | pairs.tril(-1)
    return pairs


def _match_views(views: ViewMaps, teacher: ViewMaps, *, same: bool) -> Matched:
    """Read the teacher's features at the student's cells; ``same``: both have the same views."""
    student_views = views.maps.shape[1]
    teacher_views = teacher.maps.shape[1]
    height, width = views.maps.shape[3:5]
    pairs = partner_views(student_views, teacher_views, same=same, device=teacher.maps.device)
    places = match(views.affine, teacher.affine, (height, width))
    places = places._replace(inside=places.inside & pairs[:, :, None, None])
    features, mask = sample(teacher.maps, teacher.valid, places)
    most = teacher_views
    if same:
        most -= 1
    return Matched(
        student=views.maps,
        teacher=features,
        mask=mask & views.valid[:, :, None],
        pairs=pairs,
        most=max(1, most),
    )


def _pixel(contrast: _Contrast, matched: Iterable[Matched]) -> tuple[Tensor, HeadTargets]:
    """Equation 2.

    A student cell goes through the head once, however many teacher views show its place.
    """
    student_rows = []
    teacher_rows = []
    partners = []
    count = 0
    for cells in matched:
        used = cells.mask.any(dim=2).nonzero(as_tuple=True)  # rows each
        student_rows.append(cells.student[used])  # rows D
        teacher_rows.append(cells.teacher[cells.mask])  # pairs D
        pair = cells.mask.flatten().cumsum(0).view_as(cells.mask) - 1 + count  # B Vs Vt T h w
        by_cell = pair.where(cells.mask, -1).movedim(2, -1)[used]  # rows Vt
        weights = _equal_shares(cells.mask.flatten(3)).view_as(cells.mask)  # B Vs Vt T h w
        weights = weights.movedim(2, -1)[used]  # rows Vt
        partners.append(compact(Partners(by_cell, weights), cells.most))  # rows M
        count += teacher_rows[-1].shape[0]
    paired = torch.cat(teacher_rows)  # pairs D
    targets = contrast.targets("pixel", paired, paired.new_ones(count, dtype=torch.bool))
    return contrast.loss("pixel", student_rows, targets=targets, partners=partners), targets


def _object(contrast: _Contrast, matched: Iterable[Matched]) -> tuple[Tensor, HeadTargets, Tensor]:
    """Equation 3 with one loss for each object of each pair and frame.

    Returns:
        The loss, the targets, and the mean ``spread`` of the objects over the global batch.
    """
    student_rows = []
    teacher_rows = []
    weights = []
    spreads = []
    for cells in matched:
        student_objects, teacher_objects, mask = objects(cells, contrast.spec)
        teacher_cells = cells.teacher.flatten(-3, -2)  # B Vs Vt T n D
        spreads.append(spread(teacher_cells, cells.mask.flatten(-2), teacher_objects, mask))
        present = mask.nonzero(as_tuple=True)  # images each
        student_rows.append(student_objects[present].flatten(0, 1))  # rows D
        teacher_rows.append(teacher_objects[present].flatten(0, 1))  # rows D
        clusters = student_objects.shape[-2]
        share = _equal_shares(mask)[present] / clusters  # images
        weights.append(share.repeat_interleave(clusters))  # rows
    paired = torch.cat(teacher_rows)  # rows D
    own = torch.arange(paired.shape[0], device=paired.device)  # rows
    targets = contrast.targets("object", paired, torch.ones_like(own, dtype=torch.bool))
    partners = Partners(own[:, None], torch.cat(weights)[:, None])  # rows 1
    rows = [torch.cat(student_rows)]
    loss = contrast.loss("object", rows, targets=targets, partners=[partners])
    total, count = contrast.reducer.sum(torch.stack(spreads).sum(0))
    return loss, targets, total / count.clamp(min=1)


def _image(
    contrast: _Contrast,
    student: Mapping[str, ViewMaps],
    teacher: ViewMaps,
    matched: Mapping[str, Matched],
) -> tuple[Tensor, HeadTargets]:
    """Equation 4. The targets of a teacher view are made once for all its partners."""
    teacher_vectors, present = average(teacher.maps, teacher.valid)  # B Vt T D, B Vt T
    targets = contrast.targets("image", teacher_vectors.flatten(0, 2), present.flatten())
    rows = []
    partners = []
    for size, views in student.items():
        vectors, mask = average(views.maps, views.valid)  # B Vs T D, B Vs T
        rows.append(vectors.flatten(0, 2))  # rows D
        by_view = paired_rows(matched[size].pairs, mask=mask, target_mask=present)  # rows Vt
        partners.append(compact(by_view, matched[size].most))  # rows M
    return contrast.loss("image", rows, targets=targets, partners=partners), targets


def _equal_shares(mask: Tensor) -> Tensor:
    """Weights (..., n) float32 of sum one, equal for the valid; ``mask`` is (..., n) bool."""
    share = mask.sum(dim=-1, keepdim=True).clamp(min=1).reciprocal()  # ... 1
    return share.expand_as(mask)


def average(maps: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the valid cells.

    Args:
        maps: (..., h, w, D).
        valid: (..., h, w) bool.

    Returns:
        (..., D) float32, zero without valid cells; and whether there are any (...) bool.
    """
    total = maps.float().where(valid[..., None], 0.0).sum(dim=(-3, -2))  # ... D
    count = valid.sum(dim=(-2, -1))  # ...
    return total / count.clamp(min=1)[..., None], count > 0


def objects(cells: Matched, spec: GranularitySpec) -> tuple[Tensor, Tensor, Tensor]:
    """Objects of every pair of views and frame: clusters of the matched cells.

    The clusters follow from the teacher's features. The same cells with the same shares make an
    object in both branches, so that student and teacher describe the same ground.

    Args:
        cells: matched cells of the views of one size.
        spec: settings. The number of objects C is ``clusters``, or a quarter of the cells if that
            is less.

    Returns:
        Student objects and teacher objects (B, Vs, Vt, T, C, D) float32, and the mask
        (B, Vs, Vt, T) bool: a pair with fewer matched cells than C has no objects.
    """
    mask = cells.mask.flatten(-2)  # B Vs Vt T n
    teacher = cells.teacher.flatten(-3, -2).where(mask[..., None], 0.0)  # B Vs Vt T n D
    height, width = cells.mask.shape[-2:]
    settings = ClusterSpec(spec.clusters, spec.cluster_epsilon, spec.dino.iterations)
    shares = cluster(teacher, mask, grid=(height, width), spec=settings)  # B Vs Vt T C n
    clusters = shares.shape[-2]
    # The student's cells do not depend on the teacher view: views and clusters are rows of one
    # product.
    used = mask.any(dim=2)  # B Vs T n
    student = cells.student.flatten(-3, -2).float().where(used[..., None], 0.0)  # B Vs T n D
    stacked = shares.transpose(2, 3).flatten(3, 4) @ student  # B Vs T VtC D
    student_objects = stacked.unflatten(3, (-1, clusters)).transpose(2, 3)  # B Vs Vt T C D
    return student_objects, shares @ teacher, mask.sum(dim=-1) >= clusters
