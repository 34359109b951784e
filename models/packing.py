"""The packed batch: tokens of all modalities, views and frames along one axis.

The backbone's weights are shared by all modalities, so every linear layer and every exchange of
tokens between experts runs once on the whole packed axis. Only attention and patch merging look at
the table that says where each image lies.
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
        """Split a packed tensor by group.

        Args:
            x: (N, ...).

        Returns:
            One view of ``x`` a group, (images, length, ...) each.
        """
        views = []
        for part, group in zip(x.split([group.tokens for group in self.groups]), self.groups):
            views.append(part.view(group.images, group.length, *x.shape[1:]))
        return views

    def with_prefix(self, prefix: int) -> "Layout":
        """The same images with another number of prompt tokens in front."""
        return Layout(tuple(replace(group, prefix=prefix) for group in self.groups))


def pack(groups: Sequence[Tensor]) -> Tensor:
    """Join the tokens of several groups, (images, length, D) each, to the packed (N, D)."""
    return torch.cat([tokens.reshape(-1, *tokens.shape[2:]) for tokens in groups])  # N D


def token_mask(layout: Layout, present: Sequence[Tensor]) -> Tensor:
    """Repeat one flag an image for each of its tokens.

    Args:
        layout: The table of the packed batch.
        present: One tensor (images,) bool a group.

    Returns:
        The flags of the tokens, (N,) bool.
    """
    rows = []
    for flags, group in zip(present, layout.groups):
        rows.append(flags[:, None].expand(group.images, group.length).reshape(-1))
    return torch.cat(rows)  # N


def group_numbers(layout: Layout, device: torch.device) -> Tensor:
    """The place in the table of each token's group: (N,) int64."""
    rows = []
    for number, group in enumerate(layout.groups):
        rows.append(torch.full((group.tokens,), number, device=device))
    return torch.cat(rows)  # N
