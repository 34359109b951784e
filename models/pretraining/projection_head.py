"""Projection head of the DINO loss."""

import itertools
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.spec import HeadSpec


class Cosines(NamedTuple):
    """Logits that are not computed yet: ``features @ prototypes.mT``. Both float32, rows of unit
    norm."""

    features: Tensor  # ... bottleneck
    prototypes: Tensor  # K bottleneck


class ProjectionHead(nn.Module):
    """MLP to a bottleneck on the unit sphere, where K prototypes are (DINO): their cosines are the
    logits.

    The last layer is weight-normalised without bias, its magnitude fixed at one: ``last.weight``
    holds directions, of which only the direction counts. 27.3 M parameters for width 2816 and the
    default sizes.
    """

    def __init__(self, in_width: int, spec: HeadSpec):
        super().__init__()
        if spec.layers < 1:
            raise ModelError(f"model.head.layers: expected at least 1, found {spec.layers}")
        widths = [in_width] + [spec.hidden] * (spec.layers - 1) + [spec.bottleneck]
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.last = nn.Linear(spec.bottleneck, spec.prototypes, bias=False)

    def forward(self, features: Tensor) -> Cosines:
        """(..., D) of any float type -> what gives the logits (..., K), in [-1, 1].

        Normalisation is float32, and so must the last product be: at a temperature of 0.04 the
        rounding of bf16 cosines would change a probability by several percent.
        """
        x = features.to(self.last.weight.dtype)  # ... D
        for layer in self.mlp[:-1]:
            x = F.gelu(layer(x))  # ... hidden
        x = F.normalize(self.mlp[-1](x).float(), dim=-1)  # ... bottleneck
        return Cosines(x, F.normalize(self.last.weight.float(), dim=-1))
