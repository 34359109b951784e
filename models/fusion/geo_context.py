"""Unsupervised geo-context prototypes (supplement, A.3): what a region usually looks like.

Every region of the Earth has a set of prototypes. A view reads its region's set by attention. The
features of the student's views, grouped around the prototypes by Sinkhorn-Knopp, move them slowly
(equations 8-10).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.fusion.sinkhorn import sinkhorn_many
from models.reducer import Reducer
from models.spec import ContextSpec


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

        Args:
            query: (B, G, d).
            region: (B,) int64; -1: no context.

        Returns:
            (B, G, d) in the query's type, zero for region -1.
        """
        prototypes = self._of(region).to(query.dtype)  # B P d
        logits = query @ prototypes.mT / query.shape[-1] ** 0.5  # B G P
        # softmax of bf16 logits accumulates in float32 inside the kernel
        context = logits.softmax(dim=-1) @ prototypes  # B G d
        return context.where((region >= 0)[:, None, None], context.new_zeros(()))

    @torch.no_grad()
    def assignments(self, query: Tensor, mask: Tensor, region: Tensor) -> Tensor:
        """Each sample's own values for the prototypes of its region, equations 8 and 9.

        Equation 9 leaves the scale of S open. Here the columns sum to one, so a value is a weighted
        mean of the sample's features and equation 10 averages like things, however many cells a
        sample has.

        Args:
            query: (B, G, d).
            mask: (B, G) bool, the valid cells.
            region: (B,) int64.

        Returns:
            (B, P, d) float32. The values of samples without a valid cell or without a region mean
            nothing; ``update`` leaves them out.
        """
        zero = query.new_zeros((), dtype=torch.float32)
        query = query.float().where(mask[..., None], zero)  # B G d
        prototypes = self._of(region)  # B P d
        # equation 8
        similarity = F.normalize(query, dim=-1) @ F.normalize(prototypes, dim=-1).mT  # B G P
        shares = sinkhorn_many(
            similarity, mask, epsilon=self.epsilon, iterations=self.iterations
        )  # B G P
        shares = shares.where(mask[..., None], shares.new_zeros(()))  # B G P
        total = shares.sum(dim=1, keepdim=True)  # B 1 P
        shares = shares / total.clamp(min=torch.finfo(shares.dtype).tiny)  # B G P
        return shares.mT @ query  # B P d, equation 9

    @torch.no_grad()
    def update(self, query: Tensor, mask: Tensor, region: Tensor, *, reducer: Reducer) -> Tensor:
        """Move the prototypes of every region of the global batch, equation 10.

        Samples of one region are averaged, then the region moves once. All ranks compute the same
        from the gathered values, in the order of the global batch. Regions without a sample keep
        their bits. The host waits for nothing here: shapes do not depend on how many regions there
        are.

        Args:
            query: (B, G, d), this rank's samples; B is equal on all ranks.
            mask: (B, G) bool, the valid cells.
            region: (B,) int64; -1: no region.
            reducer: Collectives over the ranks.

        Returns:
            The number of regions whose new values would not be finite, () int64, equal on all
            ranks. Unless it is zero nothing was written.
        """
        values = reducer.gather(self.assignments(query, mask, region))  # B_all P d
        region = reducer.gather(region.where(mask.any(dim=1), -1))  # B_all
        region, mean, used = _mean_by_region(values, region)
        old = self._of(region)  # B_all P d
        moved = self.momentum * old + (1 - self.momentum) * mean  # B_all P d
        wrong = used & ~moved.isfinite().flatten(1).all(dim=1)  # B_all
        self.prototypes[region.clamp(min=0)] = moved.where(used.any() & ~wrong.any(), old)
        return wrong.sum()

    def _of(self, region: Tensor) -> Tensor:
        """Prototypes (B, P, d) of each sample's region; region -1 borrows those of region 0."""
        return self.prototypes[region.clamp(min=0)]


def _mean_by_region(values: Tensor, region: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Average the values of each region.

    There are as many rows as samples, because only the device knows the number of regions. Rows
    that are too many repeat the last region.

    Args:
        values: (B, P, d) of the global batch.
        region: (B,) int64; -1: the sample does not count.

    Returns:
        The region of each row (B,), -1 everywhere if no sample has one; the means (B, P, d); and
        which rows are the first of a region, (B,) bool.
    """
    # A stable sort keeps the batch's order in a region. Segments need no atomics, so runs do not
    # differ.
    region, order = region.sort(stable=True)  # B
    is_first = (region != region.roll(1)).index_fill(0, region.new_zeros(1), False)  # B
    segment = is_first.cumsum(0)  # B: 0, 1, ...
    lengths = torch.zeros_like(region).scatter_add_(0, segment, torch.ones_like(region))  # B
    mean = torch.segment_reduce(
        values[order], "mean", lengths=lengths, axis=0, unsafe=True
    )  # B P d, by segment; the last ones are empty
    region = torch.full_like(region, -1).scatter_(0, segment, region)  # B, by segment
    used = region >= 0  # B
    # An unused row repeats the last region: -1 is the first in the order.
    source = torch.arange(len(region), device=region.device).where(used, segment[-1])  # B
    return region[source], mean[source], used
