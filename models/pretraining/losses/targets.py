"""The teacher's targets of the head loss, without their logits.

The targets are never stored. They follow from features, prototypes and two log scalings:

    t_nk = exp(features_n . prototypes_k / temperature + columns_k + rows_n).

This covers Sinkhorn-Knopp (the columns are the logarithms of its scalings) and centring (the
columns are -centre / temperature).

Logits are computed block by block, and a block holds whole rows. One pass over the blocks can
therefore normalise the rows and then sum the columns. Sinkhorn-Knopp makes one pass an iteration
and one at the end; ranks exchange 2 K numbers in its first iteration and K in each later one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from models.errors import ModelError
from models.fusion.sinkhorn import log_sum_over_ranks
from models.pretraining.losses.dino import Centre, DinoSpec, Statistics
from models.pretraining.losses.row_blocks import check_head_output, row_blocks, select_tiles
from models.reducer import Reducer


class HeadTargets(NamedTuple):
    """The teacher's distributions for one set of rows, as the formula of this module."""

    features: Tensor  # N D, zero where masked
    prototypes: Tensor  # K D
    columns: Tensor  # K log scalings
    rows: Tensor  # N log scalings; -inf where masked, which gives targets of zero
    temperature: float
    statistics: Statistics
    centre: (
        Tensor | None
    )  # K, for ``Centre.update`` after an applied step; None with Sinkhorn-Knopp


@torch.no_grad()
def head_targets(
    features: Tensor,
    prototypes: Tensor,
    *,
    mask: Tensor,
    spec: DinoSpec,
    reducer: Reducer,
    centre: Centre | None = None,
) -> HeadTargets:
    """Make the teacher's sharpened and centred distributions over the prototypes.

    Args:
        features: (N, D) of the teacher's head, float32 or float64. N may differ between ranks and
            may be zero.
        prototypes: (K, D) of the same type.
        mask: (N,) bool. Masked rows have no influence, even if NaN.
        spec: temperatures and iterations.
        reducer: collectives over the global batch.
        centre: with a centre, the targets are the softmax of the centred logits. Without one, they
            come from Sinkhorn-Knopp over the valid rows of the global batch.

    Returns:
        Targets, their statistics, and the batch mean for the centre.

    Raises:
        ModelError: other types or shapes, a temperature of 0 or less, or no iteration.
    """
    check_head_output(features, prototypes)
    _check_settings(spec, features, mask)
    features = features.where(mask[:, None], 0.0)  # N D
    scale = 1 / spec.teacher_temperature
    logits = _TeacherLogits(features, prototypes, mask=mask, scale=scale)
    batch_mean = None
    if centre is None:
        columns = _sinkhorn_columns(logits, spec.iterations, reducer)  # K
    else:
        columns = centre.value.to(features.dtype) * -scale  # K
        batch_mean = _batch_mean(features, prototypes, mask, centre=centre, reducer=reducer)  # K
    normalised = logits.normalise(columns, figures=True)
    return HeadTargets(
        features=features,
        prototypes=prototypes,
        columns=columns,
        rows=normalised.rows,
        temperature=spec.teacher_temperature,
        statistics=_statistics(normalised, mask, reducer),
        centre=batch_mean,
    )


def _check_settings(spec: DinoSpec, features: Tensor, mask: Tensor) -> None:
    if spec.teacher_temperature <= 0 or spec.iterations < 1:
        raise ModelError(
            f"head loss: expected teacher temperature > 0 and iterations >= 1, found "
            f"{spec.teacher_temperature} and {spec.iterations}"
        )
    if mask.shape != features.shape[:1]:
        raise ModelError(
            f"head loss: expected a mask of shape {tuple(features.shape[:1])}, "
            f"found {tuple(mask.shape)}"
        )


class _NormalisedRows(NamedTuple):
    """What a pass over the normalised rows of targets gives."""

    rows: Tensor  # N, log scalings with which the targets of a row sum to one; -inf where masked
    mass: Tensor  # K, sums over the rows of this rank
    entropy: Tensor  # N
    best: Tensor  # N, prototype of the largest target


class _TeacherLogits:
    """The logits of the teacher's rows, computed block by block in every pass."""

    def __init__(self, features: Tensor, prototypes: Tensor, *, mask: Tensor, scale: float):
        self.tiles = select_tiles(features)
        self.features = self.tiles.left(features)
        self.prototypes = self.tiles.right(prototypes)
        self.mask = mask
        self.scale = scale
        self.dtype = features.dtype

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows of each block and their logits (rows, K)."""
        rows = self.mask.shape[0]
        row_size = self.prototypes.shape[0]
        device = self.mask.device
        for block in row_blocks(self.tiles, rows=rows, row_size=row_size, device=device):
            yield block, self.tiles.product(self.features[block], self.prototypes)

    def _filled(self, size: int, value: float = 0.0) -> Tensor:
        return torch.full((size,), value, dtype=self.dtype, device=self.mask.device)

    def column_sums(self) -> Tensor:
        """Logarithms (K,) of the column sums over the rows of this rank, before any scaling."""
        sums = self._filled(self.prototypes.shape[0], -torch.inf)
        for block, logits in self._blocks():
            self.tiles.add_columns(sums, logits, scale=self.scale, mask=self.mask[block])
        return sums

    def normalise(self, columns: Tensor, *, figures: bool = False) -> _NormalisedRows:
        """Scale the columns, then normalise the rows.

        The mass needs no logarithm: entries with scaled columns are at most one, so a row sums to
        at most K, and after the rows are scaled a column still sums to at least 1 / K.

        Args:
            columns: (K,) log scalings.
            figures: whether to compute entropies and largest entries; zero otherwise.
        """
        row_count = self.mask.shape[0]
        rows = self._filled(row_count)  # N
        entropy = self._filled(row_count)  # N
        mass = self._filled(self.prototypes.shape[0])  # K
        best = torch.zeros_like(self.mask, dtype=torch.long)  # N
        for block, logits in self._blocks():
            normalisers, block_entropy, block_best = self.tiles.normalise(
                mass,
                logits,
                scale=self.scale,
                columns=columns,
                mask=self.mask[block],
                figures=figures,
            )
            rows[block] = -normalisers
            if figures:
                entropy[block] = block_entropy
                best[block] = block_best
        rows = rows.masked_fill_(~self.mask, -torch.inf)  # N
        return _NormalisedRows(rows, mass, entropy, best)


def _sinkhorn_columns(logits: _TeacherLogits, iterations: int, reducer: Reducer) -> Tensor:
    """Log scalings (K,) of the columns by Sinkhorn-Knopp over the global batch."""
    columns = -_finite(log_sum_over_ranks(logits.column_sums(), reducer))  # K
    for _ in range(iterations - 1):
        columns -= _finite(reducer.sum(logits.normalise(columns).mass).log())
    return columns


def _finite(sums: Tensor) -> Tensor:
    """Logarithms of column sums; zero if no rank has a valid row."""
    return sums.masked_fill(sums == -torch.inf, 0.0)


def _statistics(normalised: _NormalisedRows, mask: Tensor, reducer: Reducer) -> Statistics:
    """Statistics over the valid rows of the global batch; zero if there are none."""
    entropy = normalised.entropy.where(mask, 0.0).sum()
    rows, entropy = reducer.sum(torch.stack([mask.sum().to(entropy.dtype), entropy])).unbind()
    count = rows.clamp(min=1)
    mean = reducer.sum(normalised.mass) / count  # K
    largest = mean.new_zeros(mean.shape[0] + 1)  # K+1, the last entry is for masked rows
    largest.index_fill_(0, normalised.best.where(mask, mean.shape[0]), 1.0)
    used = reducer.sum(largest[:-1]) > 0  # K
    return Statistics(
        entropy=entropy / count,
        mean_entropy=torch.special.entr(mean).sum(),
        used=used.to(mean.dtype).mean(),
        rows=rows,
    )


def _batch_mean(
    features: Tensor, prototypes: Tensor, mask: Tensor, *, centre: Centre, reducer: Reducer
) -> Tensor:
    """Mean logits (K,) of the valid rows of the global batch; the present centre without rows.

    The mean of the logits is the logits of the mean feature.
    """
    count = reducer.sum(mask.sum())
    total = reducer.sum(features.sum(dim=0))  # D
    mean = prototypes @ (total / count.clamp(min=1))  # K
    return mean.where(count > 0, centre.value.to(total.dtype))
