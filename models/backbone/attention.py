"""What window attention and global attention share: one call for neighbouring groups alike."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.packing import Group, Layout

# CUDA attention kernels put batch and heads on grid axes limited to 65535.
MAX_GRID = 32768


def merge_alike(layout: Layout) -> Layout:
    """Merge neighbouring groups of the same grid and prompts; the merged one is named as the first.

    Attention does not depend on the modality, so two Sentinel groups side by side are one batch.
    """
    merged: list[Group] = []
    for group in layout.groups:
        if merged and _image_shape(merged[-1]) == _image_shape(group):
            merged[-1] = replace(merged[-1], images=merged[-1].images + group.images)
        else:
            merged.append(group)
    return Layout(tuple(merged))


def split_alike(x: Tensor, layout: Layout) -> list[tuple[Group, Tensor]]:
    """Split a packed tensor (N, ...) by the groups of ``merge_alike``: (images, length, ...)."""
    merged = merge_alike(layout)
    return list(zip(merged.groups, merged.split(x)))


def join(chunks: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate chunks, without a copy if there is one only."""
    if len(chunks) == 1:
        return chunks[0]
    return torch.cat(list(chunks), dim)


def _image_shape(group: Group) -> tuple[int, int, int]:
    return group.height, group.width, group.prefix
