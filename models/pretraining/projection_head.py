"""Projection head of the DINO loss."""

import itertools
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.spec import HeadSpec


class Cosines(NamedTuple):
    """Logits that are not computed yet: ``features @ prototypes.mT``.

    Both are float32 with rows of unit norm.
    """

    features: Tensor  # ... bottleneck
    prototypes: Tensor  # K bottleneck


class ProjectionHead(nn.Module):
    """MLP to a bottleneck on the unit sphere with K prototypes (DINO); cosines are the logits.

    The last layer is weight-normalised, without bias and with a magnitude of one: only the
    directions of the rows of ``last.weight`` matter. It has 27.3 M parameters for width 2816 and
    the default sizes.
    """

    def __init__(self, in_width: int, spec: HeadSpec):
        super().__init__()
        if spec.layers < 1:
            raise ModelError(f"model.head.layers: expected at least 1, found {spec.layers}")
        self.mlp = nn.ModuleList()
        for width, next_width in itertools.pairwise(layer_widths(in_width, spec)):
            self.mlp.append(nn.Linear(width, next_width))
        self.last = nn.Linear(spec.bottleneck, spec.prototypes, bias=False)

    def forward(self, features: Tensor) -> Cosines:
        """Project features of any float type.

        Normalisation runs in float32, and so must the last product: at a temperature of 0.04 the
        rounding of bf16 cosines would change a probability by several percent.

        Args:
            features: (..., D).

        Returns:
            What gives the logits (..., K), in [-1, 1].
        """
        x = features.to(self.last.weight.dtype)  # ... D
        for layer in self.mlp[:-1]:
            x = F.gelu(layer(x))  # ... hidden
        x = F.normalize(self.mlp[-1](x).float(), dim=-1)  # ... bottleneck
        return Cosines(x, F.normalize(self.last.weight.float(), dim=-1))


def layer_widths(in_width: int, spec: HeadSpec) -> list[int]:
    """Widths of the MLP from its input to the bottleneck, one more than it has layers."""
    return [in_width] + [spec.hidden] * (spec.layers - 1) + [spec.bottleneck]
