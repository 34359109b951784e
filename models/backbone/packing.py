"""The packed batch: tokens of all modalities, views and frames along one axis.

The backbone's weights are shared by all modalities, so every linear layer and every expert exchange
runs once on the whole packed axis. Only attention and patch merging look at the table that says
where each image lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Images of one modality and one grid that lie side by side in the packed axis.

    Inside a group the order is image, then ``prefix`` prompt tokens, then the grid row by row.
    """

    modality: str
    view: str  # name of the view size, for example "global"
    images: int
    height: int
    width: int
    prefix: int = 0  # prompt tokens in front of every image

    @property
    def length(self) -> int:
        """Tokens of one image, prompts included."""
        return self.prefix + self.height * self.width

    @property
    def tokens(self) -> int:
        """Tokens of the whole group."""
        return self.images * self.length


@dataclass(frozen=True)
class Layout:
    """The table of groups, in packed order."""

    groups: tuple[Group, ...]

    @property
    def tokens(self) -> int:
        """Length of the packed axis."""
        return sum(group.tokens for group in self.groups)

    def split(self, x: Tensor) -> list[Tensor]:
        """Views of the packed tensor by group: (N, D) -> list of (images, length, D)."""
        parts = x.split([group.tokens for group in self.groups])
        return [
            part.view(group.images, group.length, *x.shape[1:])
            for part, group in zip(parts, self.groups)
        ]

    def with_prefix(self, prefix: int) -> "Layout":
        """The same images with another number of prompt tokens in front."""
        return Layout(tuple(replace(group, prefix=prefix) for group in self.groups))


def pack(parts: Sequence[Tensor]) -> Tensor:
    """Join groups, list of (images, length, D), to the packed (N, D)."""
    return torch.cat([part.reshape(-1, *part.shape[2:]) for part in parts])  # N D


def token_mask(layout: Layout, present: Sequence[Tensor]) -> Tensor:
    """Per-token mask (N,) bool from per-image presence, a list of (images,) bool, one a group."""
    rows = [
        p[:, None].expand(group.images, group.length).reshape(-1)
        for p, group in zip(present, layout.groups)
    ]
    return torch.cat(rows)  # N
