"""Adaptive Patch Merging (APM): between two stages the width doubles, the grid halves or stays."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.packing import Group, Layout, pack


class PatchMerging(nn.Module):
    """Two paths to one width, and one norm behind both.

    Merge path, as in Swin V2: 2 x 2 neighbours, 4d -> 2d, without bias. Keep path: every token by
    itself, d -> 2d. With the shared norm and one bias the backbone has the 661.401 M parameters
    that the paper rounds to 661.40 M.
    """

    def __init__(self, width: int):
        super().__init__()
        self.merge = nn.Linear(4 * width, 2 * width, bias=False)
        self.keep = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(2 * width)

    def derive_parameters(self) -> None:
        """Start the keep path as the sum of the four sub-blocks of the merge path.

        On four equal neighbours both paths then agree. Their average would agree too, but for the
        norm's epsilon; the norm would multiply the gradient of so short vectors by four.
        """
        with torch.no_grad():
            self.keep.weight.copy_(self.merge.weight.unflatten(1, (4, -1)).sum(1))

    def forward(self, x: Tensor, layout: Layout, merge: Sequence[bool]) -> tuple[Tensor, Layout]:
        """Merge or keep the grid of each group.

        Args:
            x: Packed tokens (N, d) without prompts.
            layout: Their table.
            merge: For every group whether its grid halves. The last row or column of an odd grid
                counts twice.

        Returns:
            Packed tokens (M, 2d) and their table.
        """
        merge_inputs = []
        keep_inputs = []
        groups = []
        for tokens, group, halve in zip(layout.split(x), layout.groups, merge, strict=True):
            if halve:
                merge_inputs.append(neighbours(tokens, group))
                groups.append(_halved(group))
            else:
                keep_inputs.append(tokens)
                groups.append(group)
        # one product a path, then back to the order of the groups
        merged = iter(_project(self.merge, merge_inputs))
        kept = iter(_project(self.keep, keep_inputs))
        outputs = []
        for halve in merge:
            if halve:
                outputs.append(next(merged))
            else:
                outputs.append(next(kept))
        return self.norm(pack(outputs)), Layout(tuple(groups))  # M 2d


def neighbours(x: Tensor, group: Group) -> Tensor:
    """Join the channels of 2 x 2 neighbours: (images, hw, d) -> (images, h/2 w/2, 4d).

    Their order is upper left, lower left, upper right, lower right. The last row or column of an
    odd grid is repeated: zeros instead would be an input that the product never sees elsewhere.
    """
    x = x.unflatten(1, (group.height, group.width))  # images h w d
    if group.height % 2:
        x = torch.cat([x, x[:, -1:]], dim=1)
    if group.width % 2:
        x = torch.cat([x, x[:, :, -1:]], dim=2)
    x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # images h/2 2 w/2 2 d
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)  # images h/2w/2 4d


def _project(linear: nn.Linear, groups: list[Tensor]) -> list[Tensor]:
    """Apply one layer to several (images, tokens, channels) by one product."""
    if not groups:
        return []
    x = linear(pack(groups))
    parts = x.split([group.shape[0] * group.shape[1] for group in groups])
    return [part.unflatten(0, group.shape[:2]) for part, group in zip(parts, groups)]


def _halved(group: Group) -> Group:
    return replace(group, height=(group.height + 1) // 2, width=(group.width + 1) // 2)
