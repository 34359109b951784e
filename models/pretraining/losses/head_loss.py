"""The learning loss from features and prototypes, without its logits.

Logits and targets are N K numbers each (1 GiB for 4096 rows and 65,536 prototypes), and autograd
would keep two more. Here a block of rows of logits is computed, used and dropped. The teacher's
targets stay implicit,

    t_nk = exp(features_n . prototypes_k / temperature + columns_k + rows_n),

which covers Sinkhorn-Knopp (columns: the logarithms of its scalings) and centring (columns =
-centre / temperature). A block holds whole rows, so one reading of the logits normalises the rows
and then sums the columns: Sinkhorn-Knopp reads them once an iteration and once at the end, and
exchanges 2 K numbers at first and K in a later iteration. The student's gradients follow in the
same reading as its loss, since the loss is a sum of rows: four products of N K D for student and
targets, as many as with logits, and iterations + 1 instead of one for the teacher.

Extra memory: the block, the gradient K D of the prototypes until the backward pass, some numbers a
row and a prototype, and on a GPU both models' prototypes in halves while the loss is made, 6 bytes
a weight. It does not grow with N K.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.errors import ModelError
from models.fusion.sinkhorn import log_sum_over_ranks
from models.kernels.dispatch import kernel_path
from models.pretraining.losses import head_tiles
from models.pretraining.losses.dino import Centre, DinoSpec, Statistics, share
from models.reducer import Reducer

Head = Callable[
    [Tensor], tuple[Tensor, Tensor]
]  # (rows, width) -> features (rows, D) and prototypes (K, D)


class HeadTargets(NamedTuple):
    """The teacher's distributions for one set of rows, implicit; see the module."""

    features: Tensor  # N D, zero where masked
    prototypes: Tensor  # K D
    columns: Tensor  # K
    rows: Tensor  # N, -inf where masked: targets of zero
    temperature: float
    statistics: Statistics
    centre: (
        Tensor | None
    )  # K, what ``Centre.update`` wants once the step is applied; None with Sinkhorn-Knopp


@torch.no_grad()
def head_targets(
    features: Tensor,
    prototypes: Tensor,
    mask: Tensor,
    spec: DinoSpec,
    reducer: Reducer,
    centre: Centre | None = None,
) -> HeadTargets:
    """The teacher's sharpened, centred distributions, their statistics and the centre's next step.

    Without a ``centre``: Sinkhorn-Knopp over the valid rows of the global batch; with one: softmax
    of the centred logits. ``features`` (N, D) and ``prototypes`` (K, D), float32 or float64,
    ``mask`` (N,) bool. Masked rows have no influence, NaN included. N may differ between ranks and
    may be zero. Raises ModelError for other types or shapes, or unless temperature > 0 and
    iterations >= 1.
    """
    _check(features, prototypes)
    if spec.teacher_temperature <= 0 or spec.iterations < 1:
        raise ModelError(
            f"head loss: expected teacher temperature > 0 and iterations >= 1, found "
            f"{spec.teacher_temperature} and {spec.iterations}"
        )
    if mask.shape != features.shape[:1]:
        raise ModelError(
            f"head loss: expected a mask of shape {tuple(features.shape[:1])}, found {tuple(mask.shape)}"
        )
    features = features.where(mask[:, None], 0.0)  # N D
    scale = 1 / spec.teacher_temperature
    reading = _Reading(features, prototypes, mask, scale)
    if centre is None:
        columns, mean = -_finite(log_sum_over_ranks(reading.first(), reducer)), None  # K
        for _ in range(spec.iterations - 1):
            columns -= _finite(reducer.sum(reading.normalised(columns).mass).log())
    else:
        columns = centre.value.to(features.dtype) * -scale  # K
        mean = _batch_mean(features, prototypes, mask, centre, reducer)
    found = reading.normalised(columns, figures=True)
    return HeadTargets(
        features,
        prototypes,
        columns,
        found.rows,
        spec.teacher_temperature,
        _statistics(found, mask, reducer),
        mean,
    )


def head_loss(
    features: Tensor, prototypes: Tensor, targets: HeadTargets, partners: Tensor, temperature: float
) -> Tensor:
    """Sum of the cross-entropies of all pairs of a student's and a teacher's row, a scalar.

    ``features`` (N, D) and ``prototypes`` (K, D), float32 or float64 and differentiable once;
    ``partners`` (N, M) int64: the teacher's rows that a row meets, each a row of ``targets`` or -1
    for none. A row without partners has no influence, NaN included. Raises ModelError for other
    types or shapes.
    """
    _check(features, prototypes)
    if prototypes.shape[0] != targets.prototypes.shape[0]:
        raise ModelError(
            f"head loss: expected as many prototypes as the teacher's {targets.prototypes.shape[0]}, "
            f"found {prototypes.shape[0]}"
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
    targets: HeadTargets,
    partners: list[Tensor],
    temperature: float,
    reducer: Reducer,
) -> Tensor:
    """Mean loss of all pairs of the global batch, this rank's share.

    ``rows``, one (N, width) a part, pass the student's ``head`` together; ``partners``, one (N, M)
    a part, as in ``head_loss``. Parts may differ in N and M.
    """
    features, prototypes = head(torch.cat(rows))
    parts = features.split([len(part) for part in rows])
    total = sum(
        head_loss(mine, prototypes, targets, theirs, temperature)
        for mine, theirs in zip(parts, partners, strict=True)
    )
    return share(total, sum((theirs >= 0).sum() for theirs in partners), reducer)


def paired_rows(pairs: Tensor, mask: Tensor, target_mask: Tensor) -> Tensor:
    """Partners for views that meet views row by row.

    ``pairs`` (S, t) bool: which student view meets which teacher view; ``mask`` (B, S, n) and
    ``target_mask`` (B, t, n) bool. Returns (B S n, t) for student rows and targets flattened in
    that order.
    """
    rows = (
        torch.arange(target_mask.numel(), device=mask.device).view_as(target_mask).transpose(1, 2)
    )  # B n t
    met = pairs[:, None] & mask[..., None] & target_mask.transpose(1, 2)[:, None]  # B S n t
    return rows[:, None].where(met, -1).flatten(0, 2)  # BSn t


def compact(partners: Tensor, most: int) -> Tensor:
    """The same ``partners`` (N, M) in ``most`` columns, those of a row first: an empty column costs
    a product too.

    No row may have more of them than ``most``.
    """
    return partners.sort(dim=1, descending=True).values[:, :most]  # N most


class _HeadLoss(torch.autograd.Function):
    """Gradients are made in the forward pass, while the block is there, and scaled in the backward
    pass."""

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
        gradient = gradient and any(ctx.needs_input_grad[:2])
        tiles = _tiles(features)
        own, other = tiles.left(features), tiles.right(prototypes)
        # one row more, of nobody: index -1
        teachers = torch.cat(
            [targets.features, targets.features.new_zeros(1, targets.features.shape[1])]
        )  # P+1 D
        teachers, their = tiles.left(teachers), tiles.right(targets.prototypes)
        offsets = torch.cat([targets.rows, targets.rows.new_full((1,), -torch.inf)])[
            partners
        ]  # N M
        count = (offsets != -torch.inf).sum(dim=1).to(features.dtype)  # N
        values = torch.empty_like(count)  # N
        d_features, d_prototypes = (
            torch.zeros_like(x) if gradient else None for x in (features, prototypes)
        )
        for block in _blocks(
            tiles, features.shape[0], prototypes.shape[0] * (1 + partners.shape[1])
        ):
            logits = tiles.product(own[block], other)  # rows K
            theirs = tiles.product(teachers[partners[block].flatten()], their)  # rows M, K
            values[block], pulled = tiles.cross_entropy(
                logits,
                theirs.unflatten(0, partners[block].shape),
                1 / temperature,
                1 / targets.temperature,
                targets.columns,
                offsets[block],
                count[block],
                gradient,
            )
            if gradient:
                d_features[block] = tiles.pull_back(pulled, own[block], other, d_prototypes)
        if gradient:
            ctx.save_for_backward(d_features, d_prototypes)
        return values.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        """The gradients that were kept, times that of the sum."""
        d_features, d_prototypes = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            d_features * gradient if wanted[0] else None,
            d_prototypes * gradient if wanted[1] else None,
            None,
            None,
            None,
            None,
        )


class _Normalised(NamedTuple):
    """The teacher's rows, normalised."""

    rows: Tensor  # N, log scalings: the targets of a row sum to one; -inf where masked
    mass: Tensor  # K, sums over this rank's rows
    entropy: Tensor  # N
    best: Tensor  # N, prototype of the largest target


class _Reading:
    """Reads all logits of the teacher, block by block."""

    def __init__(self, features: Tensor, prototypes: Tensor, mask: Tensor, scale: float):
        self.tiles = _tiles(features)
        self.features, self.prototypes = self.tiles.left(features), self.tiles.right(prototypes)
        self.mask, self.scale, self.dtype = mask, scale, features.dtype

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their logits (rows, K)."""
        for block in _blocks(self.tiles, self.mask.shape[0], self.prototypes.shape[0]):
            yield block, self.tiles.product(self.features[block], self.prototypes)

    def _new(self, size: int, value: float = 0.0) -> Tensor:
        return torch.full((size,), value, dtype=self.dtype, device=self.mask.device)

    def first(self) -> Tensor:
        """Logarithms (K,) of the column sums over this rank's rows, nothing scaled."""
        sums = self._new(self.prototypes.shape[0], -torch.inf)
        for block, logits in self._blocks():
            self.tiles.add_columns(sums, logits, self.scale, self.mask[block])
        return sums

    def normalised(self, columns: Tensor, figures: bool = False) -> _Normalised:
        """``columns`` (K,): their log scalings. Entropy and best stay zero unless ``figures``.

        The mass needs no logarithm: entries of scaled columns are at most one, so a row sums to K
        at most, and after the rows are scaled a column still sums to 1 / K or more.
        """
        count = self.mask.shape[0]
        rows, entropy, mass = (
            self._new(count),
            self._new(count),
            self._new(self.prototypes.shape[0]),
        )
        best = torch.zeros_like(self.mask, dtype=torch.long)  # N
        for block, logits in self._blocks():
            sums, *rest = self.tiles.normalise(
                mass, logits, self.scale, columns, self.mask[block], figures
            )
            rows[block] = -sums
            if figures:
                entropy[block], best[block] = rest
        return _Normalised(rows.masked_fill_(~self.mask, -torch.inf), mass, entropy, best)


def _finite(sums: Tensor) -> Tensor:
    """Logarithms of column sums; zero where no valid row is anywhere."""
    return sums.masked_fill(sums == -torch.inf, 0.0)


def _statistics(found: _Normalised, mask: Tensor, reducer: Reducer) -> Statistics:
    """Over the valid rows of the global batch; zero if there are none."""
    entropy = found.entropy.where(mask, 0.0).sum()
    count, entropy = reducer.sum(torch.stack([mask.sum().to(entropy.dtype), entropy])).unbind()
    count = count.clamp(min=1)
    mean = reducer.sum(found.mass) / count  # K
    largest = mean.new_zeros(mean.shape[0] + 1)  # K+1, the last one for masked rows
    largest.index_fill_(0, found.best.where(mask, mean.shape[0]), 1.0)
    used = reducer.sum(largest[:-1]) > 0  # K
    return Statistics(entropy / count, torch.special.entr(mean).sum(), used.to(mean.dtype).mean())


def _batch_mean(
    features: Tensor, prototypes: Tensor, mask: Tensor, centre: Centre, reducer: Reducer
) -> Tensor:
    """Mean logits (K,) of the global batch's valid rows: those of the mean feature. Without rows
    the present centre."""
    count = reducer.sum(mask.sum())
    total = reducer.sum(features.sum(dim=0))  # D
    return (prototypes @ (total / count.clamp(min=1))).where(
        count > 0, centre.value.to(total.dtype)
    )


def _blocks(tiles, count: int, row: int) -> Iterator[slice]:
    """Slices of ``count`` rows, each of ``row`` numbers, that hold about ``tiles.BLOCK`` numbers."""
    step = max(1, tiles.BLOCK // row)
    return (slice(start, start + step) for start in range(0, count, step))


def _tiles(x: Tensor):
    """The module that works on blocks for ``x``."""
    if kernel_path("head_loss", x, why_not=None if x.dtype == torch.float32 else f"{x.dtype}"):
        from models.kernels import head_loss

        return head_loss
    return head_tiles


def _check(features: Tensor, prototypes: Tensor) -> None:
    types = {features.dtype, prototypes.dtype}
    if len(types) > 1 or not types <= {torch.float32, torch.float64}:
        raise ModelError(
            f"head loss: expected float32 (or float64) features and prototypes, found {features.dtype} "
            f"and {prototypes.dtype}; half precision is too coarse for a temperature of 0.04"
        )
    if features.ndim != 2 or prototypes.ndim != 2 or features.shape[1] != prototypes.shape[1]:
        raise ModelError(
            f"head loss: expected features (N, D) and prototypes (K, D), found {tuple(features.shape)} "
            f"and {tuple(prototypes.shape)}"
        )
