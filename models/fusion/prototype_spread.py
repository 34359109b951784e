"""How far the prototypes of a region differ, for the log of a run."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PrototypeSpread(NamedTuple):
    """Sums over this rank's samples that have a region, each () float32.

    Divided by ``samples``, once all ranks are added, they are means.
    """

    samples: Tensor
    # mean cosine between two prototypes of the region; 1: all point the same way
    cosine: Tensor
    # effective number of directions in which the prototypes differ from their mean
    rank: Tensor
    # mean square distance of the prototypes to their mean
    prototypes: Tensor
    # mean square distance of the batch's cells in the region to their mean
    cells: Tensor


def prototype_spread(prototypes: Tensor, cells: Tensor, has_region: Tensor) -> PrototypeSpread:
    """Measure the prototypes that some samples read.

    The effective number of directions is the participation ratio (sum of the covariance's
    eigenvalues)^2 / sum of their squares. It needs no eigenvalues, for which the host would wait.

    Args:
        prototypes: (B, P, d) of each sample's region, P at least 2.
        cells: (B,) mean square distance of a sample's cells to the mean of the region's cells.
        has_region: (B,) bool, the samples that count.
    """
    count = prototypes.shape[1]
    direction = F.normalize(prototypes, dim=-1).sum(dim=1)  # B d
    cosine = (direction.square().sum(dim=-1) - count) / (count * (count - 1))  # B
    centred = prototypes - prototypes.mean(dim=1, keepdim=True)  # B P d
    products = centred @ centred.mT  # B P P
    trace = centred.square().sum(dim=(1, 2))  # B
    tiny = torch.finfo(products.dtype).tiny
    rank = trace.square() / products.square().sum(dim=(1, 2)).clamp(min=tiny)  # B
    numbers = torch.stack([torch.ones_like(cosine), cosine, rank, trace / count, cells])  # 5 B
    return PrototypeSpread(*numbers.where(has_region, numbers.new_zeros(())).sum(dim=1))
