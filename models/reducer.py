"""Batch statistics without processes: what the losses may ask of the other ranks.

``models`` never touches process groups. Whatever needs the global batch (Sinkhorn-Knopp, centres,
prototypes, the balance of the gate) receives a reducer. This one is the default for a single
process; ``engine`` supplies one that speaks over the data-parallel group.
"""

from torch import Tensor


class Reducer:
    """Collectives over the global batch; here for one process."""

    world_size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """Sum over ranks, no gradient. The argument is left untouched."""
        return x

    def max(self, x: Tensor) -> Tensor:
        """Elementwise maximum over ranks, no gradient. The argument is left untouched."""
        return x

    def sum_with_grad(self, x: Tensor) -> Tensor:
        """Sum over ranks whose backward sums the gradients over ranks too."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """Concatenate over ranks along the first axis in rank order, no gradient. Equal shapes on
        all ranks."""
        return x

    def mean(self, values: Tensor, mask: Tensor) -> Tensor:
        """Mean of ``values`` where ``mask`` over the global batch, as this rank's share.

        Returns a scalar: local sum x world size / global count, so that the average over ranks
        (what data-parallel training takes of losses and gradients) is the global mean, however the
        valid entries spread over ranks. Zero with a zero gradient when nothing is valid anywhere.
        """
        weight = mask.to(values.dtype)
        count = self.sum(weight.sum().detach())
        # where() rather than a product: 0 x inf of a masked entry would be NaN
        total = values.where(mask, values.new_zeros(())).sum()
        return total * self.world_size / count.clamp(min=1)
