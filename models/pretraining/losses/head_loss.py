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


class Partners(NamedTuple):
    """The rows of the targets that each row of the student is paired with."""

    rows: Tensor  # N M int64, -1 for none
    weights: Tensor  # N M float32, how much a pair counts; of no meaning where there is none

    @classmethod
    def equal(cls, rows: Tensor) -> "Partners":
        """Every pair counts as much as any other."""
        return cls(rows, torch.ones_like(rows, dtype=torch.float32))

    @property
    def total(self) -> Tensor:
        """() sum of the weights of all pairs."""
        return self.weights.where(self.rows >= 0, 0.0).sum()


def head_loss(
    features: Tensor,
    prototypes: Tensor,
    *,
    targets: HeadTargets,
    partners: Partners,
    temperature: float,
) -> Tensor:
    """Weighted sum of the cross-entropies of all pairs of a student's and a teacher's row.

    Args:
        features: (N, D) of the student's head, float32 or float64; differentiable once. A row
            without partners has no influence, even if NaN.
        prototypes: (K, D) of the same type; differentiable once.
        targets: of ``targets.head_targets``.
        partners: the rows of ``targets`` that each row is paired with.
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
    for tensor in partners:
        if tensor.ndim != 2 or tensor.shape[0] != features.shape[0]:
            raise ModelError(
                f"head loss: expected partners of shape ({features.shape[0]}, M), "
                f"found {tuple(tensor.shape)}"
            )
    features = features.where((partners.rows >= 0).any(dim=1, keepdim=True), 0.0)  # N D
    return _HeadLoss.apply(
        features, prototypes, targets, partners, temperature, torch.is_grad_enabled()
    )


def mean_loss(
    head: Head,
    rows: list[Tensor],
    *,
    targets: HeadTargets,
    partners: list[Partners],
    temperature: float,
    reducer: Reducer,
) -> Tensor:
    """Weighted mean loss of all pairs of the global batch.

    Args:
        head: the student's; all parts go through it together.
        rows: one tensor (N, width) a part; N may differ.
        targets: of ``targets.head_targets``.
        partners: those of each part, as in ``head_loss``; M may differ.
        temperature: the student's.
        reducer: collectives over the global batch.

    Returns:
        () this rank's share.
    """
    features, prototypes = head(torch.cat(rows))
    parts = features.split([len(part) for part in rows])
    total = features.new_zeros(())
    weight = features.new_zeros(())
    for part, part_partners in zip(parts, partners, strict=True):
        total = total + head_loss(
            part, prototypes, targets=targets, partners=part_partners, temperature=temperature
        )
        weight = weight + part_partners.total
    return share(total, weight, reducer)


def paired_rows(pairs: Tensor, *, mask: Tensor, target_mask: Tensor) -> Partners:
    """Partners of the rows of views that are paired row by row.

    The rows of a pair of views share the weight 1, so that a series of many frames counts as much
    as one of few.

    Args:
        pairs: (Vs, Vt) bool, which student view is paired with which teacher view.
        mask: (B, Vs, N) bool, valid student rows.
        target_mask: (B, Vt, N) bool, valid teacher rows.

    Returns:
        Partners (B Vs N, Vt). Student rows and teacher rows are flattened in the order of their
        masks.
    """
    rows = torch.arange(target_mask.numel(), device=mask.device)
    rows = rows.view_as(target_mask).transpose(1, 2)  # B N Vt
    both_valid = mask[..., None] & target_mask.transpose(1, 2)[:, None]  # B Vs N Vt
    paired = pairs[:, None] & both_valid  # B Vs N Vt
    count = paired.sum(dim=2, keepdim=True)  # B Vs 1 Vt
    weights = count.clamp(min=1).reciprocal().expand_as(paired)  # B Vs N Vt
    return Partners(
        rows[:, None].where(paired, -1).flatten(0, 2),  # BVsN Vt
        weights.flatten(0, 2),  # BVsN Vt
    )


def compact(partners: Partners, most: int) -> Partners:
    """Move the partners of each row to the front and drop the empty columns behind them.

    An empty column would cost a product too.

    Args:
        partners: (N, M); at most ``most`` partners a row.
        most: columns to keep.

    Returns:
        (N, most).
    """
    rows, order = partners.rows.sort(dim=1, descending=True)  # N M
    weights = partners.weights.gather(1, order)  # N M
    return Partners(rows[:, :most], weights[:, :most])


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
        partners: Partners,
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
    partners: Partners,
    temperature: float,
    gradients: _Gradients | None,
) -> Tensor:
    """Loss (N,) of each row, summed over its partners; fills ``gradients`` unless None.

    A weight is one more log scaling of the targets.
    """
    tiles = select_tiles(features)
    student_features = tiles.left(features)
    student_prototypes = tiles.right(prototypes)
    # One row more than the teacher has: index -1, no partner.
    absent = targets.features.new_zeros(1, targets.features.shape[1])  # 1 D
    teacher_features = tiles.left(torch.cat([targets.features, absent]))
    teacher_prototypes = tiles.right(targets.prototypes)
    log_scalings = torch.cat([targets.rows, targets.rows.new_full((1,), -torch.inf)])
    offsets = log_scalings[partners.rows]  # N M
    weights = partners.weights.to(features.dtype)  # N M
    total_weight = weights.where(offsets != -torch.inf, 0.0).sum(dim=1)  # N
    offsets = offsets + weights.log()  # N M
    values = torch.empty_like(total_weight)  # N
    row_size = prototypes.shape[0] * (1 + offsets.shape[1])
    rows = features.shape[0]
    for block in row_blocks(tiles, rows=rows, row_size=row_size, device=features.device):
        logits = tiles.product(student_features[block], student_prototypes)  # rows K
        block_partners = partners.rows[block]  # rows M
        paired_features = teacher_features[block_partners.flatten()]
        paired_logits = tiles.product(paired_features, teacher_prototypes)  # rowsM K
        values[block], logit_gradient = tiles.cross_entropy(
            logits,
            paired_logits.unflatten(0, block_partners.shape),
            scale=1 / temperature,
            teacher_scale=1 / targets.temperature,
            columns=targets.columns,
            rows=offsets[block],
            weight=total_weight[block],
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
