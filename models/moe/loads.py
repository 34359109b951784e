"""How many tokens the experts of a step were sent and had to drop, for the logs.

Shapes depend on the model and the table of the batch alone, so that ranks can add their counts, and
the host does not wait for the device.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.errors import ModelError
from models.moe.layer import Routing


class TokenKind(NamedTuple):
    """Which tokens a count is of."""

    modality: str
    view: str  # name of the view size


def expert_load(routings: Sequence[Routing], *, experts: int, modalities: Sequence[str]) -> Tensor:
    """Count the tokens that chose each expert. Prompts count too.

    Args:
        routings: One a MoE layer.
        experts: E, the experts of each layer.
        modalities: The order of the second axis of the result.

    Returns:
        (layers, modalities, E) int64.

    Raises:
        ModelError: There is no routing.
    """
    if not routings:
        raise ModelError("expert_load: expected the routing of at least one MoE layer, found none")
    layers = []
    for routing in routings:
        rows = []
        for group in routing.layout.groups:
            number = modalities.index(group.modality)
            rows.append(routing.expert.new_full((group.tokens,), number))
        modality = torch.cat(rows)  # N
        valid = routing.expert >= 0  # N, masked tokens chose none
        # masked tokens fall into a last bin of their own, which keeps the shapes fixed
        last_bin = len(modalities) * experts
        bins = (modality * experts + routing.expert).where(valid, last_bin)  # N
        counts = bins.new_zeros(last_bin + 1)  # modalities x E + 1
        # unlike bincount, scatter_add_ need not wait for the device
        counts.scatter_add_(0, bins, torch.ones_like(bins))
        layers.append(counts[:-1].view(len(modalities), experts))
    return torch.stack(layers)  # layers modalities E


def dropped_counts(routings: Sequence[Routing]) -> dict[TokenKind, Tensor]:
    """Count the tokens of each sensor and view size, and those that found their expert full.

    Args:
        routings: One a MoE layer; all count. Prompts count too.

    Returns:
        (2,) int64 for each kind of the tables: tokens present, and of these dropped.
    """
    counts: dict[TokenKind, Tensor] = {}
    for routing in routings:
        fates = torch.stack([routing.expert >= 0, routing.dropped], dim=1)  # N 2
        layout = routing.layout
        for group, group_fates in zip(layout.groups, layout.split(fates)):
            kind = TokenKind(group.modality, group.view)
            count = group_fates.sum((0, 1))  # 2
            counts[kind] = counts.get(kind, 0) + count
    return counts
