"""Query-based semantic aggregation contrastive learning (QSACL).

L = 1 / (2 m) sum_i ( CL(z_i^g, z_i^l') + CL(z_i^l, z_i^g') ): query i of a global view meets query i of a local view
of the same sample, the student's of one and the teacher's (prime) of the other. So the first term needs the teacher's
queries of the local views too. Both sums are means over the pairs of views that hold data.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.errors import ModelError
from models.pretraining.losses.dino import Centre, DinoSpec, Statistics
from models.pretraining.losses.head_loss import Head, head_targets, mean_loss, paired_rows
from models.reducer import Reducer

SYMMETRIC = (("global", "local"), ("local", "global"))


class Aggregation(NamedTuple):
    """Loss (this rank's share) and what the teacher did."""

    loss: Tensor
    statistics: Statistics
    centre: Tensor | None  # for ``Centre.update`` after an applied step; None with Sinkhorn-Knopp


def semantic_aggregation(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    valid: Mapping[str, Tensor],
    student_head: Head,
    teacher_head: Head,
    spec: DinoSpec,
    reducer: Reducer,
    centre: Centre | None = None,
    pairs: Sequence[tuple[str, str]] = SYMMETRIC,
) -> Aggregation:
    """Mean loss over all pairs of views, queries and samples of the global batch.

    ``student`` and ``teacher``: view size -> queries (B, V, m, D); ``valid``: view size -> (B, V)
    bool, False where a view holds nothing, which then takes part in no pair. ``pairs``: (student
    size, teacher size), every view of the one with every view of the other of the same sample.
    Targets come from all teacher queries in ``pairs`` together. Raises ModelError if a size in
    ``pairs`` is missing.
    """
    for given, name, sizes in zip((student, teacher), ("student", "teacher"), zip(*pairs)):
        missing = sorted(set(sizes) - set(given))
        if missing:
            raise ModelError(
                f"semantic aggregation: expected queries of the {name} for {missing}, "
                f"found {sorted(given)}; give them or leave these pairs out"
            )
    sizes = list(dict.fromkeys(size for _, size in pairs))
    with torch.no_grad():
        rows = torch.cat([_clean(teacher[size], valid[size]) for size in sizes], dim=1)  # B Vt m D
        present = torch.cat(
            [_each_query(teacher[size], valid[size]) for size in sizes], dim=1
        )  # B Vt m
        found = head_targets(
            *teacher_head(rows.flatten(0, 2)), present.flatten(), spec, reducer, centre
        )
    views = [teacher[size].shape[1] for size in sizes]
    rows, partners = [], []
    for size in dict.fromkeys(size for size, _ in pairs):
        mask = _each_query(student[size], valid[size])  # B Vs m
        met = paired_rows(mask.new_ones(mask.shape[1], sum(views)), mask, present).split(
            views, dim=1
        )  # n V each
        partners.append(
            torch.cat([own for own, other in zip(met, sizes) if (size, other) in pairs], dim=1)
        )  # n Vt
        rows.append(_clean(student[size], valid[size]).flatten(0, 2))  # n D
    loss = mean_loss(student_head, rows, found, partners, spec.student_temperature, reducer)
    return Aggregation(loss, found.statistics, found.centre)


def _clean(queries: Tensor, valid: Tensor) -> Tensor:
    """Zero where the view holds nothing; NaN there would reach the head's gradients."""
    return queries.where(valid[..., None, None], queries.new_zeros(()))


def _each_query(queries: Tensor, valid: Tensor) -> Tensor:
    """(B, V) -> (B, V, m)."""
    return valid[..., None].expand(queries.shape[:3])
