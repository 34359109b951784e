"""KoLeo regulariser (optional): spreads the features of the global batch over the sphere."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.pretraining.losses.dino import share
from models.reducer import Reducer

EPSILON = 1e-8  # under the logarithm: two equal features


def koleo(features: Tensor, mask: Tensor, reducer: Reducer) -> Tensor:
    """- mean log distance of each L2-normalised feature to the nearest other one: this rank's share.

    ``features`` (N, D), ``mask`` (N,) bool; N must be equal on all ranks. The nearest neighbour is
    sought in the global batch and taken as a constant, so that the gradient does not depend on
    which rank holds it. Masked rows have no influence; zero with zero gradients if fewer than two
    rows are valid anywhere.
    """
    x = F.normalize(features.float().where(mask[:, None], 0.0), dim=-1)  # N D
    with torch.no_grad():
        everyone, valid = reducer.gather(x.detach()), reducer.gather(mask)  # N_all D, N_all
        # differences, not dot products: a row's distance to itself is then zero exactly, and it
        # comes first
        distance = torch.cdist(x, everyone, compute_mode="donot_use_mm_for_euclid_dist")  # N N_all
        distance = distance.masked_fill(~valid, torch.inf)
        second = distance.topk(min(2, len(everyone)), largest=False).indices[:, -1]  # N
        mask = mask & (valid.sum() > 1)  # N
    values = -((x - everyone[second]).norm(dim=-1) + EPSILON).log()  # N
    return share(values.where(mask, 0.0).sum(), mask.sum(), reducer)
