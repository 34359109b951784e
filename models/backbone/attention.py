"""What window attention and global attention share: one call for neighbouring groups of the same
shape."""

from collections.abc import Iterator

from torch import Tensor

from models.backbone.packing import Group, Layout

# CUDA attention kernels put batch and heads on grid axes limited to 65535.
MAX_GRID = 32768


def alike(layout: Layout) -> list[tuple[Group, int]]:
    """Runs of neighbouring groups with the same grid and prompts, as (one of them, images of all of
    them).

    Attention does not care for the modality, so two Sentinel groups that lie side by side are one
    batch.
    """
    runs: list[tuple[Group, int]] = []
    for group in layout.groups:
        if runs and _shape(runs[-1][0]) == _shape(group):
            runs[-1] = (group, runs[-1][1] + group.images)
        else:
            runs.append((group, group.images))
    return runs


def split_alike(x: Tensor, layout: Layout) -> Iterator[tuple[Group, Tensor]]:
    """Packed (N, ...) -> for every run of ``alike`` one of its groups and its tokens (images,
    length, ...)."""
    runs = alike(layout)
    parts = x.split([images * group.length for group, images in runs])
    for (group, images), part in zip(runs, parts):
        yield group, part.view(images, group.length, *x.shape[1:])


def _shape(group: Group) -> tuple[int, int, int]:
    return group.height, group.width, group.prefix
