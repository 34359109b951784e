"""The samples of the global batch, grouped by their region.

Only the device knows how many regions a batch has. So there are as many groups as samples, of which
the last ones may be empty: no shape depends on data, and the host waits for nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.reducer import Reducer


@dataclass(frozen=True)
class RegionGroups:
    """Which samples share a region. ``B`` counts this rank's samples, ``B_all`` the global batch.

    Sums have the order of the global batch inside a region and need no atomics, so neither the run
    nor the number of ranks changes them, but for rounding.
    """

    order: Tensor  # B_all int64, the samples sorted by region
    group: Tensor  # B_all int64, group of each sample of ``order``: 0, 1, ...
    lengths: Tensor  # B_all int64, samples of each group; 0: the group is empty
    region: Tensor  # B_all int64, region of each group; -1: no region, or empty
    own: Tensor  # B int64, group of each sample of this rank
    reducer: Reducer

    @classmethod
    def gather(cls, region: Tensor, reducer: Reducer) -> "RegionGroups":
        """Group the global batch. It is a collective call.

        Args:
            region: (B,) int64 of this rank's samples, -1 for none; B is equal on all ranks.
            reducer: Collectives over the ranks.
        """
        everywhere = reducer.gather(region)  # B_all
        ordered, order = everywhere.sort(stable=True)  # B_all
        is_first = (ordered != ordered.roll(1)).index_fill(0, ordered.new_zeros(1), False)  # B_all
        group = is_first.cumsum(0)  # B_all
        lengths = torch.zeros_like(ordered).scatter_add_(0, group, torch.ones_like(ordered))
        of_group = torch.full_like(ordered, -1).scatter_(0, group, ordered)  # B_all
        own = group[torch.searchsorted(ordered, region)]  # B
        return cls(
            order=order, group=group, lengths=lengths, region=of_group, own=own, reducer=reducer
        )

    def sum(self, values: Tensor) -> Tensor:
        """Add up values (B, ...) of this rank's samples with all others': (B_all, ...) by group.

        It is a collective call. Values that are not finite stay in their group.
        """
        return self._reduce(self.reducer.gather(values)[self.order], "sum")

    def log_sum(self, values: Tensor) -> Tensor:
        """Logarithms (B, ...) of summands -> those of their group's sums, for each own sample.

        It is a collective call.
        """
        values = self.reducer.gather(values)[self.order]  # B_all ...
        peak = self._reduce(values, "max")  # B_all ..., by group
        peak = peak.clamp(min=torch.finfo(peak.dtype).min)  # B_all ...; -inf - -inf would be NaN
        total = self._reduce((values - peak[self.group]).exp(), "sum")  # B_all ...
        return (total.log() + peak)[self.own]  # B ...

    def _reduce(self, ordered: Tensor, how: str) -> Tensor:
        """Reduce values (B_all, ...) in the order of regions to (B_all, ...) by group."""
        return torch.segment_reduce(ordered, how, lengths=self.lengths, axis=0, unsafe=True)
