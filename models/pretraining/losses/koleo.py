"""KoLeo regulariser (optional): spreads the features of the global batch over the sphere."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.pretraining.losses.dino import share
from models.reducer import Reducer

EPSILON = 1e-8  # keeps the logarithm finite for two equal features


def koleo(features: Tensor, mask: Tensor, reducer: Reducer) -> Tensor:
    """Negative mean log distance of each L2-normalised feature to its nearest neighbour.

    The nearest neighbour is searched in the global batch and treated as a constant, so that the
    gradient does not depend on which rank holds it.

    Args:
        features: (N, D); N must be equal on all ranks.
        mask: (N,) bool. Masked rows have no influence.
        reducer: collectives over the global batch.

    Returns:
        () this rank's share; zero with zero gradients if fewer than two rows are valid on all
        ranks together.
    """
    x = F.normalize(features.float().where(mask[:, None], 0.0), dim=-1)  # N D
    with torch.no_grad():
        gathered = reducer.gather(x.detach())  # N_all D
        gathered_mask = reducer.gather(mask)  # N_all
        # From differences, not from dot products: the distance of a row to itself is then exactly
        # zero, so the row itself comes first.
        distance = torch.cdist(x, gathered, compute_mode="donot_use_mm_for_euclid_dist")  # N N_all
        distance = distance.masked_fill(~gathered_mask, torch.inf)  # N N_all
        nearest = distance.topk(min(2, len(gathered)), largest=False).indices[:, -1]  # N
        mask = mask & (gathered_mask.sum() > 1)  # N
    values = -((x - gathered[nearest]).norm(dim=-1) + EPSILON).log()  # N
    return share(values.where(mask, 0.0).sum(), mask.sum(), reducer)
