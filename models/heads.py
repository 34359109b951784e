"""Projection head of the DINO loss."""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from models.spec import HeadSpec


class ProjectionHead(nn.Module):
    """MLP to a bottleneck on the unit sphere, then cosines with K prototypes (DINO).

    The last layer is weight-normalised without bias, its magnitude fixed at one: ``last.weight`` holds directions,
    of which only the direction counts. 27.3 M parameters for width 2816 and the default sizes.
    """

    def __init__(self, in_width: int, spec: HeadSpec):
        super().__init__()
        if spec.layers < 1:
            raise ValueError(f"model.head.layers: expected at least 1, found {spec.layers}")
        widths = [in_width] + [spec.hidden] * (spec.layers - 1) + [spec.bottleneck]
        self.mlp = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.last = nn.Linear(spec.bottleneck, spec.prototypes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) of any float type -> logits (..., K) float32 in [-1, 1].

        Normalisation and last product are float32: at a temperature of 0.04 the rounding of bf16 cosines would
        change a probability by several percent.
        """
        x = features.to(self.last.weight.dtype)  # ... D
        for layer in self.mlp[:-1]:
            x = F.gelu(layer(x))  # ... hidden
        x = F.normalize(self.mlp[-1](x).float(), dim=-1)  # ... bottleneck
        return F.linear(x, F.normalize(self.last.weight.float(), dim=-1))  # ... K
