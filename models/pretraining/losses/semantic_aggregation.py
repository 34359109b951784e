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
from models.pretraining.losses.head_loss import Head, mean_loss, paired_rows
from models.pretraining.losses.targets import HeadTargets, head_targets
from models.reducer import Reducer

SYMMETRIC = (("global", "local"), ("local", "global"))  # (student size, teacher size)


class Aggregation(NamedTuple):
    """The loss (this rank's share) and statistics of the teacher."""

    loss: Tensor
    statistics: Statistics
    centre: Tensor | None  # for ``Centre.update`` after an applied step; None with Sinkhorn-Knopp


def semantic_aggregation(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    *,
    valid: Mapping[str, Tensor],
    student_head: Head,
    teacher_head: Head,
    spec: DinoSpec,
    reducer: Reducer,
    centre: Centre | None = None,
    pairs: Sequence[tuple[str, str]] = SYMMETRIC,
) -> Aggregation:
    """Mean loss over all pairs of views, queries and samples of the global batch.

    Args:
        student: view size -> queries (B, V, m, D).
        teacher: view size -> queries (B, V, m, D).
        valid: view size -> (B, V) bool. A view where it is False is in no pair.
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
    present = [_query_mask(teacher[size], valid[size]) for size in teacher_sizes]  # B V m each
    targets = _targets(
        [_clean(teacher[size], valid[size]) for size in teacher_sizes],
        present,
        head=teacher_head,
        spec=spec,
        reducer=reducer,
        centre=centre,
    )
    view_counts = [mask.shape[1] for mask in present]
    target_mask = torch.cat(present, dim=1)  # B Vt m
    rows = []
    partners = []
    for size in student_sizes:
        mask = _query_mask(student[size], valid[size])  # B Vs m
        every_pair = mask.new_ones(mask.shape[1], sum(view_counts))  # Vs Vt
        candidates = paired_rows(every_pair, mask=mask, target_mask=target_mask)  # BVsm Vt
        by_size = dict(zip(teacher_sizes, candidates.split(view_counts, dim=1)))  # BVsm V each
        partners.append(_wanted(size, by_size, pairs))  # BVsm M
        rows.append(_clean(student[size], valid[size]).flatten(0, 2))  # BVsm D
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
    queries: list[Tensor],
    masks: list[Tensor],
    *,
    head: Head,
    spec: DinoSpec,
    reducer: Reducer,
    centre: Centre | None,
) -> HeadTargets:
    """Targets of the teacher's queries of all sizes together: (B, V, m, D) and (B, V, m) each."""
    features, prototypes = head(torch.cat(queries, dim=1).flatten(0, 2))
    mask = torch.cat(masks, dim=1).flatten()  # BVtm
    return head_targets(features, prototypes, mask=mask, spec=spec, reducer=reducer, centre=centre)


def _distinct(name: str, queries: Mapping[str, Tensor], sizes: Iterable[str]) -> list[str]:
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


def _wanted(
    student_size: str, by_size: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]]
) -> Tensor:
    """Join the partners (rows, V) of the teacher sizes that a student size is paired with."""
    wanted = []
    for teacher_size, columns in by_size.items():
        if (student_size, teacher_size) in pairs:
            wanted.append(columns)
    return torch.cat(wanted, dim=1)


def _clean(queries: Tensor, valid: Tensor) -> Tensor:
    """Set the queries of empty views to zero; NaN there would reach the head's gradients."""
    return queries.where(valid[..., None, None], queries.new_zeros(()))


def _query_mask(queries: Tensor, valid: Tensor) -> Tensor:
    """Repeat the validity of each view for its queries: (B, V) -> (B, V, m)."""
    return valid[..., None].expand(queries.shape[:3])
