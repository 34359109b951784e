"""Unsupervised geo-context prototypes (supplement, A.3): what a region usually looks like.

Every region of the Earth has a set of prototypes. A view reads its region's set by attention. The
features of the student's views, grouped around the prototypes by Sinkhorn-Knopp, move them slowly
(equations 8-10).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.fusion.prototype_spread import PrototypeSpread, prototype_spread
from models.fusion.region_groups import RegionGroups
from models.fusion.sinkhorn import sinkhorn_many
from models.reducer import Reducer
from models.spec import ContextSpec


@dataclass(frozen=True)
class ContextUpdate:
    """What an update of the prototypes says of itself."""

    # () int64, equal on all ranks: regions whose new values would not be finite. Unless it is zero
    # nothing was written.
    lost_regions: Tensor
    spread: PrototypeSpread  # of this rank's samples, before the update


class GeoContext(nn.Module):
    """Prototypes (R, P, d) of all regions, read by attention, updated by a moving average.

    The prototypes are a buffer, not a parameter. They stay float32 in a module cast to any other
    type: at momentum 0.99 a step's change lies below the resolution of bf16 and would be rounded
    away. They are NaN until ``init_parameter`` or a checkpoint fills them.
    """

    prototypes: Tensor  # R P d

    def __init__(self, in_width: int, spec: ContextSpec):
        super().__init__()
        self.momentum = spec.momentum
        self.epsilon = spec.epsilon
        self.iterations = spec.iterations
        self.projection = nn.Linear(in_width, spec.width)
        shape = (spec.regions, spec.prototypes, spec.width)
        self.register_buffer("prototypes", torch.full(shape, torch.nan, dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GeoContext":
        """Move the prototypes to another device, but never to another type.

        ``to``, ``cuda``, ``bfloat16`` and the like all come here.
        """
        prototypes = self.prototypes
        del self._buffers["prototypes"]
        try:
            super()._apply(fn, recurse)
            device = fn(prototypes.new_empty(0)).device
            if prototypes.is_meta:
                moved = torch.empty_like(prototypes, device=device)
            else:
                moved = prototypes.to(device)
        except BaseException:
            self._buffers["prototypes"] = prototypes  # a failed move leaves the module whole
            raise
        self._buffers["prototypes"] = moved
        return self

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the prototypes with random directions of norm one."""
        if name != "prototypes":
            raise ModelError(
                f"GeoContext: expected 'prototypes', found {name!r}; give it a rule of its own"
            )
        with torch.no_grad():
            tensor.normal_(generator=generator)
            tensor.div_(tensor.norm(dim=-1, keepdim=True))

    def query(self, features: Tensor) -> Tensor:
        """Fusion output (..., in_width) -> queries (..., d) that read and update the prototypes."""
        return self.projection(features)

    def read(self, query: Tensor, region: Tensor) -> Tensor:
        """Context softmax(Q K^T / sqrt d) V with K = V = the region's prototypes.

        Q is the direction in which a cell differs from the mean prototype, with the length sqrt d,
        over the scale on which the prototypes differ among each other. Without these two steps all
        cells of a region would read its mean: what they share is a multiple of what sets them
        apart, and a product of short vectors over sqrt d is about zero.

        Args:
            query: (B, G, d).
            region: (B,) int64; -1: no context.

        Returns:
            (B, G, d) in the query's type, zero for region -1.
        """
        prototypes = self._of(region)  # B P d
        mean = prototypes.mean(dim=1, keepdim=True)  # B 1 d
        # Keys less their mean give the same softmax. Their scale is divided off here, not from Q,
        # so that both fit any type.
        keys = prototypes - mean  # B P d
        scale = keys.square().mean(dim=(1, 2), keepdim=True).sqrt()  # B 1 1
        keys = keys / scale.clamp(min=torch.finfo(keys.dtype).tiny)  # B P d
        # Q K^T / sqrt d with |Q| = sqrt d
        direction = F.normalize(query.float() - mean, dim=-1)  # B G d
        logits = direction.to(query.dtype) @ keys.to(query.dtype).mT  # B G P
        # softmax of bf16 logits accumulates in float32 inside the kernel
        context = logits.softmax(dim=-1) @ prototypes.to(query.dtype)  # B G d
        return context.where((region >= 0)[:, None, None], context.new_zeros(()))

    @torch.no_grad()
    def update(
        self, query: Tensor, mask: Tensor, region: Tensor, *, reducer: Reducer
    ) -> ContextUpdate:
        """Move the prototypes of every region of the global batch, equations 8 to 10.

        The cells of all samples of a region are assigned together, then the region moves once. All
        ranks compute the same from the gathered values, in the order of the global batch. Regions
        without a sample keep their bits. The host waits for nothing here: shapes do not depend on
        how many regions there are.

        Args:
            query: (B, G, d), this rank's samples; B is equal on all ranks.
            mask: (B, G) bool, the valid cells.
            region: (B,) int64; -1: no region.
            reducer: Collectives over the ranks.
        """
        region = region.where(mask.any(dim=1), -1)  # B
        groups = RegionGroups.gather(region, reducer)
        query = query.float().where(mask[..., None], query.new_zeros((), dtype=torch.float32))
        centred = _less_mean_of_region(query, mask, groups)  # B G d
        prototypes = self._of(region)  # B P d
        shares = self._shares(centred, mask, prototypes, groups)  # B G P
        values, used = _values(query, shares, groups)
        lost = self._move(values, used, groups)
        distance = centred.square().sum(dim=(1, 2)) / mask.sum(dim=1).clamp(min=1)  # B
        return ContextUpdate(lost, prototype_spread(prototypes, distance, region >= 0))

    def _shares(
        self, centred: Tensor, mask: Tensor, prototypes: Tensor, groups: RegionGroups
    ) -> Tensor:
        """S of equation 8 and Sinkhorn-Knopp, over all cells of a region.

        Cosines are between differences to the mean, of the cells and of the prototypes. The cosines
        of equation 8 as they stand are all alike where cells share much, and at epsilon 0.05 every
        prototype would get the mean of all cells.

        Args:
            centred: (B, G, d), cells less the mean of their region's cells.
            mask: (B, G) bool.
            prototypes: (B, P, d) of each sample's region.
            groups: The global batch by region.

        Returns:
            (B, G, P). The rows of valid cells sum to one, the others are zero.
        """
        keys = prototypes - prototypes.mean(dim=1, keepdim=True)  # B P d
        similarity = F.normalize(centred, dim=-1) @ F.normalize(keys, dim=-1).mT  # B G P
        return sinkhorn_many(
            similarity,
            mask,
            epsilon=self.epsilon,
            iterations=self.iterations,
            column_sums=groups.log_sum,
        )

    def _move(self, values: Tensor, used: Tensor, groups: RegionGroups) -> Tensor:
        """Equation 10 for the regions of the global batch.

        Args:
            values: (B_all, P, d) by group.
            used: (B_all,) bool, the groups that have a region and samples.
            groups: The global batch by region.

        Returns:
            The number of regions whose new values would not be finite, () int64. Unless it is zero
            nothing is written.
        """
        # The others repeat the last region: -1 is the first in the order.
        number = torch.arange(len(used), device=used.device)  # B_all
        source = number.where(used, groups.group[-1])  # B_all
        region = groups.region[source].clamp(min=0)  # B_all
        old = self.prototypes[region]  # B_all P d
        moved = self.momentum * old + (1 - self.momentum) * values[source]  # B_all P d
        wrong = used & ~moved.isfinite().flatten(1).all(dim=1)  # B_all
        self.prototypes[region] = moved.where(used.any() & ~wrong.any(), old)
        return wrong.sum()

    def _of(self, region: Tensor) -> Tensor:
        """Prototypes (B, P, d) of each sample's region; region -1 borrows those of region 0."""
        return self.prototypes[region.clamp(min=0)]


def _less_mean_of_region(query: Tensor, mask: Tensor, groups: RegionGroups) -> Tensor:
    """Cells less the mean of all valid cells of their region in the global batch.

    Args:
        query: (B, G, d) float32, zero where masked.
        mask: (B, G) bool.
        groups: The global batch by region.

    Returns:
        (B, G, d), zero where masked.
    """
    count = mask.sum(dim=1, keepdim=True).to(query.dtype)  # B 1
    total = groups.sum(torch.cat([query.sum(dim=1), count], dim=-1))[groups.own]  # B d+1
    mean = total[:, :-1] / total[:, -1:].clamp(min=1)  # B d
    return (query - mean[:, None]).where(mask[..., None], query.new_zeros(()))


def _values(query: Tensor, shares: Tensor, groups: RegionGroups) -> tuple[Tensor, Tensor]:
    """Equation 9 for each region of the global batch.

    The equation leaves the scale of S open. Here the columns sum to one over the region's cells, so
    a value is a weighted mean of features and equation 10 averages like things, however many cells
    or samples a region has.

    Args:
        query: (B, G, d) float32, zero where masked.
        shares: (B, G, P) S, zero where masked.
        groups: The global batch by region.

    Returns:
        The values (B_all, P, d) by group, and which groups have a region and samples, (B_all,)
        bool.
    """
    own = torch.cat([shares.mT @ query, shares.sum(dim=1)[..., None]], dim=-1)  # B P d+1
    total = groups.sum(own)  # B_all P d+1
    weight = total[..., -1:].clamp(min=torch.finfo(total.dtype).tiny)  # B_all P 1
    return total[..., :-1] / weight, groups.region >= 0
