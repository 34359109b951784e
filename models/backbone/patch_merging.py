"""Adaptive Patch Merging (APM): between two stages the width doubles, the grid halves or stays."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone.packing import Group, Layout, pack


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
        """Start the keep path as the average of the four sub-blocks of the merge path.

        On four equal neighbours both paths then agree, since the norm behind them takes out the
        factor of four.
        """
        with torch.no_grad():
            self.keep.weight.copy_(self.merge.weight.unflatten(1, (4, -1)).mean(1))

    def forward(self, x: Tensor, layout: Layout, merge: Sequence[bool]) -> tuple[Tensor, Layout]:
        """Packed (N, d) without prompts -> packed (M, 2d) and its layout.

        ``merge``: for every group whether its grid halves. Odd grids are padded with zeros at the
            bottom and right.
        """
        parts = layout.split(x)
        merged = [
            neighbours(part, group)
            for part, group, m in zip(parts, layout.groups, merge, strict=True)
            if m
        ]
        kept = [part for part, m in zip(parts, merge) if not m]
        # one product a path, then back to the order of the groups
        outputs = iter(self._project(self.merge, merged)), iter(self._project(self.keep, kept))
        x = pack([next(outputs[0 if m else 1]) for m in merge])  # M 2d
        groups = [_halved(group) if m else group for group, m in zip(layout.groups, merge)]
        return self.norm(x), Layout(tuple(groups))

    @staticmethod
    def _project(linear: nn.Linear, parts: list[Tensor]) -> list[Tensor]:
        """The same layer on several (images, tokens, channels) at once."""
        if not parts:
            return []
        x = linear(pack(parts))
        sizes = [part.shape[0] * part.shape[1] for part in parts]
        return [y.unflatten(0, part.shape[:2]) for y, part in zip(x.split(sizes), parts)]


def neighbours(x: Tensor, group: Group) -> Tensor:
    """(images, hw, d) -> (images, h/2 w/2, 4d): upper left, lower left, upper right, lower right."""
    x = x.unflatten(1, (group.height, group.width))  # images h w d
    if group.height % 2 or group.width % 2:
        x = F.pad(x, (0, 0, 0, group.width % 2, 0, group.height % 2))
    x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # images h/2 2 w/2 2 d
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)


def _halved(group: Group) -> Group:
    return replace(group, height=(group.height + 1) // 2, width=(group.width + 1) // 2)
