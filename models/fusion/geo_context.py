"""Unsupervised geo-context prototypes (supplement, A.3): what a region usually looks like.

Every region of the Earth has a set of prototypes. A view reads its region's set by attention; the
features of the student's views, grouped around the prototypes by Sinkhorn-Knopp, move them slowly
(equations 8-10).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.fusion.sinkhorn import sinkhorn_many
from models.reducer import Reducer
from models.spec import ContextSpec


class GeoContext(nn.Module):
    """Prototypes (R, P, d) of all regions, read by attention, updated by a moving average.

    The prototypes are a buffer, not a parameter, and stay float32 in a module cast to any other type: at momentum
    0.99 a step's change lies below the resolution of bf16 and would be rounded away. They are NaN until
    ``init_parameter`` or a checkpoint fills them.
    """

    def __init__(self, in_width: int, spec: ContextSpec):
        super().__init__()
        self.momentum = spec.momentum
        self.epsilon = spec.epsilon
        self.iterations = spec.iterations
        self.projection = nn.Linear(in_width, spec.width)
        self.prototypes: Tensor  # R P d
        self.register_buffer(
            "prototypes",
            torch.full((spec.regions, spec.prototypes, spec.width), torch.nan, dtype=torch.float32),
        )

    def _apply(self, fn, recurse=True):
        """What ``to``, ``cuda``, ``bfloat16``... go through: the prototypes follow the device,
        never the dtype."""
        prototypes = self._buffers.pop("prototypes")
        try:
            super()._apply(fn, recurse)
            device = fn(prototypes.new_empty(0)).device
            moved = (
                torch.empty_like(prototypes, device=device)
                if prototypes.is_meta
                else prototypes.to(device)
            )
        except BaseException:
            self._buffers["prototypes"] = prototypes  # a failed move leaves the module whole
            raise
        self._buffers["prototypes"] = moved
        return self

    def init_parameter(self, name: str, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill the prototypes with random directions of norm one."""
        if name != "prototypes":
            raise ModelError(f"GeoContext: expected 'prototypes', found {name!r}")
        with torch.no_grad():
            tensor.normal_(generator=generator)
            tensor.div_(tensor.norm(dim=-1, keepdim=True))

    def query(self, features: Tensor) -> Tensor:
        """Fusion output (..., in_width) -> queries (..., d) that read and update the prototypes."""
        return self.projection(features)

    def read(self, query: Tensor, region: Tensor) -> Tensor:
        """Context softmax(Q K^T / sqrt d) V with K = V = the region's prototypes.

        ``query`` (B, cells, d), ``region`` (B,) int64 -> (B, cells, d) in the query's type. Region
        -1: zeros.
        """
        prototypes = self._of(region).to(query.dtype)  # B P d
        logits = query @ prototypes.mT / query.shape[-1] ** 0.5  # B cells P
        # softmax of bf16 logits accumulates in float32 inside the kernel
        context = logits.softmax(dim=-1) @ prototypes  # B cells d
        return context.where((region >= 0)[:, None, None], context.new_zeros(()))

    @torch.no_grad()
    def assignments(self, query: Tensor, mask: Tensor, region: Tensor) -> Tensor:
        """Each sample's own values for the prototypes of its region, equations 8 and 9.

        ``query`` (B, cells, d), ``mask`` (B, cells) bool, ``region`` (B,) -> (B, P, d) float32.
        Equation 9 leaves the scale of S open: here the columns sum to one, so a value is a weighted
        mean of the sample's features and equation 10 is an average of like things, however many
        cells a sample has. Samples without a valid cell or without a region give values of no
        meaning; ``update`` leaves them out.
        """
        query = query.float().where(
            mask[..., None], query.new_zeros((), dtype=torch.float32)
        )  # B N d
        prototypes = self._of(region)  # B P d
        similarity = (
            F.normalize(query, dim=-1) @ F.normalize(prototypes, dim=-1).mT
        )  # B N P, equation 8
        shares = sinkhorn_many(similarity, mask, self.epsilon, self.iterations)  # B N P
        shares = shares.where(mask[..., None], shares.new_zeros(()))  # B N P
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(
            min=torch.finfo(shares.dtype).tiny
        )  # B N P
        return shares.mT @ query  # B P d, equation 9

    @torch.no_grad()
    def update(self, query: Tensor, mask: Tensor, region: Tensor, reducer: Reducer) -> Tensor:
        """Move the prototypes of every region of the global batch, equation 10.

        ``query`` (B, cells, d), ``mask`` (B, cells) bool, ``region`` (B,): this rank's samples, B
        equal on all ranks. Samples of one region are averaged, then the region moves once. All
        ranks compute the same from the gathered values, in the order of the global batch. Regions
        without a sample keep their bits.

        Returns the number of regions whose new values would not be finite, () int64, equal on all
        ranks: unless it is zero nothing was written. The host waits for nothing here; shapes do not
        depend on how many regions there are.
        """
        values = reducer.gather(self.assignments(query, mask, region))  # B_all P d
        region = reducer.gather(region.where(mask.any(dim=1), -1))  # B_all
        # a stable sort keeps the batch's order in a region; segments need no atomics, so no
        # run-to-run differences
        region, order = region.sort(stable=True)  # B_all
        segment = (
            (region != region.roll(1)).index_fill(0, region.new_zeros(1), False).cumsum(0)
        )  # B_all, 0, 1, ...
        # as many segments as samples, the last ones empty: their number is known to the device
        # alone
        lengths = torch.zeros_like(region).scatter_add_(
            0, segment, torch.ones_like(region)
        )  # B_all
        region = torch.full_like(region, -1).scatter_(
            0, segment, region
        )  # B_all, by segment from here on
        mean = torch.segment_reduce(
            values[order], "mean", lengths=lengths, axis=0, unsafe=True
        )  # B_all P d
        used = region >= 0  # B_all
        # a segment of no region writes once more what the last one writes: region -1 is the first
        # in the order
        source = torch.arange(len(region), device=region.device).where(used, segment[-1])  # B_all
        region = region[source]  # B_all, -1 everywhere if no sample has a region
        old = self._of(region)  # B_all P d
        moved = self.momentum * old + (1 - self.momentum) * mean[source]  # B_all P d
        wrong = used & ~moved.isfinite().flatten(1).all(dim=1)  # B_all
        self.prototypes[region.clamp(min=0)] = moved.where(used.any() & ~wrong.any(), old)
        return wrong.sum()

    def _of(self, region: Tensor) -> Tensor:
        """Prototypes (B, P, d) of each sample's region; region -1 borrows those of region 0."""
        return self.prototypes[region.clamp(min=0)]
