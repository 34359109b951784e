"""The loss of a projection head from features and prototypes, without its logits.

Logits and targets are N K numbers each (1 GiB for 4096 rows and 65,536 prototypes), and autograd
would keep two more tensors of that size. Here a block of rows of logits is computed, used and
dropped; the teacher's targets are a formula (see ``targets``). The loss is a sum over rows, so the
student's gradients are computed in the same pass as its value. That costs four products of N K D
for student and targets, as many as with stored logits, and iterations + 1 instead of one for the
teacher.

Extra memory: the block, the gradient K D of the prototypes until the backward pass, a few numbers
for each row and prototype, and on a GPU the prototypes of both models in halves while the loss is
computed, 6 bytes a weight. It does not grow with N K.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.errors import ModelError
from models.pretraining.losses.dino import share
from models.pretraining.losses.row_blocks import check_head_output, row_blocks, select_tiles
from models.pretraining.losses.targets import HeadTargets
from models.reducer import Reducer

# (rows, width) -> features (rows, D) and prototypes (K, D)
Head = Callable[[Tensor], tuple[Tensor, Tensor]]


def head_loss(
    features: Tensor,
    prototypes: Tensor,
    *,
    targets: HeadTargets,
    partners: Tensor,
    temperature: float,
) -> Tensor:
    """Sum of the cross-entropies of all pairs of a student's and a teacher's row.

    Args:
        features: (N, D) of the student's head, float32 or float64; differentiable once. A row
            without partners has no influence, even if NaN.
        prototypes: (K, D) of the same type; differentiable once.
        targets: of ``targets.head_targets``.
        partners: (N, M) int64, the rows of ``targets`` that each row is paired with; -1 for none.
        temperature: the student's.

    Returns:
        () sum over all pairs.

    Raises:
        ModelError: other types or shapes.
    """
    check_head_output(features, prototypes)
    if prototypes.shape[0] != targets.prototypes.shape[0]:
        raise ModelError(
            f"head loss: expected as many prototypes as the teacher's "
            f"{targets.prototypes.shape[0]}, found {prototypes.shape[0]}"
        )
    if partners.ndim != 2 or partners.shape[0] != features.shape[0]:
        raise ModelError(
            f"head loss: expected partners of shape ({features.shape[0]}, M), "
            f"found {tuple(partners.shape)}"
        )
    features = features.where((partners >= 0).any(dim=1, keepdim=True), 0.0)  # N D
    return _HeadLoss.apply(
        features, prototypes, targets, partners, temperature, torch.is_grad_enabled()
    )


def mean_loss(
    head: Head,
    rows: list[Tensor],
    *,
    targets: HeadTargets,
    partners: list[Tensor],
    temperature: float,
    reducer: Reducer,
) -> Tensor:
    """Mean loss of all pairs of the global batch.

    Args:
        head: the student's; all parts go through it together.
        rows: one tensor (N, width) a part; N may differ.
        targets: of ``targets.head_targets``.
        partners: one tensor (N, M) a part, as in ``head_loss``; M may differ.
        temperature: the student's.
        reducer: collectives over the global batch.

    Returns:
        () this rank's share.
    """
    features, prototypes = head(torch.cat(rows))
    parts = features.split([len(part) for part in rows])
    total = features.new_zeros(())
    count = partners[0].new_zeros(())
    for part, part_partners in zip(parts, partners, strict=True):
        total = total + head_loss(
            part, prototypes, targets=targets, partners=part_partners, temperature=temperature
        )
        count = count + (part_partners >= 0).sum()
    return share(total, count, reducer)


def paired_rows(pairs: Tensor, *, mask: Tensor, target_mask: Tensor) -> Tensor:
    """Partners of the rows of views that are paired row by row.

    Args:
        pairs: (Vs, Vt) bool, which student view is paired with which teacher view.
        mask: (B, Vs, N) bool, valid student rows.
        target_mask: (B, Vt, N) bool, valid teacher rows.

    Returns:
        (B Vs N, Vt) int64 indices of teacher rows, -1 for none. Student rows and teacher rows are
        flattened in the order of their masks.
    """
    rows = torch.arange(target_mask.numel(), device=mask.device)
    rows = rows.view_as(target_mask).transpose(1, 2)  # B N Vt
    both_valid = mask[..., None] & target_mask.transpose(1, 2)[:, None]  # B Vs N Vt
    return rows[:, None].where(pairs[:, None] & both_valid, -1).flatten(0, 2)  # BVsN Vt


def compact(partners: Tensor, most: int) -> Tensor:
    """Move the partners of each row to the front and drop the empty columns behind them.

    An empty column would cost a product too.

    Args:
        partners: (N, M) int64, -1 for none; at most ``most`` partners a row.
        most: columns to keep.

    Returns:
        (N, most).
    """
    return partners.sort(dim=1, descending=True).values[:, :most]  # N most


class _Gradients(NamedTuple):
    """Gradients of the student, filled block by block."""

    features: Tensor  # N D
    prototypes: Tensor  # K D


class _HeadLoss(torch.autograd.Function):
    """``head_loss`` with gradients that are computed in the forward pass, while a block exists.

    The backward pass only scales them.
    """

    @staticmethod
    def forward(
        ctx,
        features: Tensor,
        prototypes: Tensor,
        targets: HeadTargets,
        partners: Tensor,
        temperature: float,
        gradient: bool,
    ) -> Tensor:
        """Sum of the losses of all rows; see ``head_loss``."""
        gradients = None
        if gradient and any(ctx.needs_input_grad[:2]):
            gradients = _Gradients(torch.zeros_like(features), torch.zeros_like(prototypes))
        values = _row_losses(
            features,
            prototypes,
            targets=targets,
            partners=partners,
            temperature=temperature,
            gradients=gradients,
        )  # N
        if gradients is not None:
            ctx.save_for_backward(gradients.features, gradients.prototypes)
        return values.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        """Scale the stored gradients by the gradient of the sum."""
        feature_gradient, prototype_gradient = ctx.saved_tensors
        inputs: list[Tensor | None] = [None] * 6
        if ctx.needs_input_grad[0]:
            inputs[0] = feature_gradient * gradient
        if ctx.needs_input_grad[1]:
            inputs[1] = prototype_gradient * gradient
        return tuple(inputs)


def _row_losses(
    features: Tensor,
    prototypes: Tensor,
    *,
    targets: HeadTargets,
    partners: Tensor,
    temperature: float,
    gradients: _Gradients | None,
) -> Tensor:
    """Loss (N,) of each row, summed over its partners; fills ``gradients`` unless None."""
    tiles = select_tiles(features)
    student_features = tiles.left(features)
    student_prototypes = tiles.right(prototypes)
    # One row more than the teacher has: index -1, no partner.
    absent = targets.features.new_zeros(1, targets.features.shape[1])  # 1 D
    teacher_features = tiles.left(torch.cat([targets.features, absent]))
    teacher_prototypes = tiles.right(targets.prototypes)
    log_scalings = torch.cat([targets.rows, targets.rows.new_full((1,), -torch.inf)])
    offsets = log_scalings[partners]  # N M
    count = (offsets != -torch.inf).sum(dim=1).to(features.dtype)  # N
    values = torch.empty_like(count)  # N
    row_size = prototypes.shape[0] * (1 + partners.shape[1])
    for block in row_blocks(tiles, rows=features.shape[0], row_size=row_size):
        logits = tiles.product(student_features[block], student_prototypes)  # rows K
        block_partners = partners[block]  # rows M
        paired_features = teacher_features[block_partners.flatten()]
        paired_logits = tiles.product(paired_features, teacher_prototypes)  # rowsM K
        values[block], logit_gradient = tiles.cross_entropy(
            logits,
            paired_logits.unflatten(0, block_partners.shape),
            scale=1 / temperature,
            teacher_scale=1 / targets.temperature,
            columns=targets.columns,
            rows=offsets[block],
            count=count[block],
            gradient=gradients is not None,
        )
        if gradients is not None:
            gradients.features[block] = tiles.pull_back(
                logit_gradient,
                student_features[block],
                student_prototypes,
                total=gradients.prototypes,
            )
    return values
