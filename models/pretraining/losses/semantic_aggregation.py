"""Query-based semantic aggregation contrastive learning (QSACL).

L = 1 / (2 m) sum_i ( CL(z_i^g, z_i^l') + CL(z_i^l, z_i^g') )

Query i of a global view is paired with query i of a local view of the same sample, the student's of
one with the teacher's (prime) of the other. The first term therefore needs the teacher's queries of
the local views too. Both sums are means over the pairs of views that hold data.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.errors import ModelError
from models.pretraining.losses.dino import Centre, DinoSpec, Statistics
from models.pretraining.losses.head_loss import Head, compact, mean_loss, paired_rows
from models.pretraining.losses.targets import HeadTargets, head_targets
from models.reducer import Reducer

SYMMETRIC = (("global", "local"), ("local", "global"))  # (student size, teacher size)


class ViewQueries(NamedTuple):
    """The queries of all views of one size, in one branch."""

    queries: Tensor  # B V m D
    valid: Tensor  # B V bool; a view where it is False is in no pair

    @property
    def mask(self) -> Tensor:
        """The validity of each view, repeated for its queries: B V m."""
        return self.valid[..., None].expand(self.queries.shape[:3])

    @property
    def clean(self) -> Tensor:
        """The queries, zero in empty views: B V m D. NaN would reach the head's gradients."""
        return self.queries.where(self.valid[..., None, None], 0.0)


class Aggregation(NamedTuple):
    """The loss (this rank's share) and statistics of the teacher."""

    loss: Tensor
    statistics: Statistics
    centre: Tensor | None  # for ``Centre.update`` after an applied step; None with Sinkhorn-Knopp


def semantic_aggregation(
    student: Mapping[str, ViewQueries],
    teacher: Mapping[str, ViewQueries],
    *,
    student_head: Head,
    teacher_head: Head,
    spec: DinoSpec,
    reducer: Reducer,
    centre: Centre | None = None,
    pairs: Sequence[tuple[str, str]] = SYMMETRIC,
) -> Aggregation:
    """Mean loss over all pairs of views, queries and samples of the global batch.

    Args:
        student: the student's queries by view size.
        teacher: the teacher's.
        student_head: the student's projection head.
        teacher_head: the teacher's.
        spec: temperatures and iterations.
        reducer: collectives over the global batch.
        centre: replaces Sinkhorn-Knopp, which runs over all teacher queries in ``pairs`` together.
        pairs: (student size, teacher size); all views of one are paired with all views of the other
            within a sample.

    Raises:
        ModelError: the queries of a size in ``pairs`` are missing.
    """
    student_sizes = _distinct("student", student, [size for size, _ in pairs])
    teacher_sizes = _distinct("teacher", teacher, [size for _, size in pairs])
    target_mask = torch.cat([teacher[size].mask for size in teacher_sizes], dim=1)  # B Vt m
    targets = _targets(
        torch.cat([teacher[size].clean for size in teacher_sizes], dim=1),
        target_mask,
        head=teacher_head,
        spec=spec,
        reducer=reducer,
        centre=centre,
    )
    rows = []
    partners = []
    for size in student_sizes:
        mask = student[size].mask  # B Vs m
        meets = []  # V each, whether a student view meets the teacher's views of a size
        for teacher_size in teacher_sizes:
            views = teacher[teacher_size].valid.shape[1]
            meets.append(mask.new_full((views,), (size, teacher_size) in pairs))
        met = torch.cat(meets).expand(mask.shape[1], -1)  # Vs Vt
        candidates = paired_rows(met, mask=mask, target_mask=target_mask)  # BVsm Vt
        most = sum(teacher[other].valid.shape[1] for one, other in pairs if one == size)
        partners.append(compact(candidates, most))  # BVsm M
        rows.append(student[size].clean.flatten(0, 2))  # BVsm D
    loss = mean_loss(
        student_head,
        rows,
        targets=targets,
        partners=partners,
        temperature=spec.student_temperature,
        reducer=reducer,
    )
    return Aggregation(loss, targets.statistics, targets.centre)


@torch.no_grad()
def _targets(
    queries: Tensor,
    mask: Tensor,
    *,
    head: Head,
    spec: DinoSpec,
    reducer: Reducer,
    centre: Centre | None,
) -> HeadTargets:
    """Targets of the teacher's queries (B, Vt, m, D) where ``mask`` (B, Vt, m)."""
    features, prototypes = head(queries.flatten(0, 2))
    rows = mask.flatten()  # BVtm
    return head_targets(features, prototypes, mask=rows, spec=spec, reducer=reducer, centre=centre)


def _distinct(name: str, queries: Mapping[str, ViewQueries], sizes: Iterable[str]) -> list[str]:
    """The distinct sizes in order. Raises ModelError if the queries of one are missing.

    Args:
        name: "student" or "teacher", for the message.
        queries: by view size.
        sizes: wanted.
    """
    missing = sorted(set(sizes) - set(queries))
    if missing:
        raise ModelError(
            f"semantic aggregation: expected queries of the {name} for {missing}, "
            f"found {sorted(queries)}; give them or leave these pairs out"
        )
    return list(dict.fromkeys(sizes))
