"""Adaptive patch merging against timm's and its own definition."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import PatchMerging as TimmMerging

from models.backbone.patch_merging import PatchMerging
from models.initialise import initialise
from models.packing import Group, Layout

WIDTH = 6


def random_merging() -> PatchMerging:
    merging = PatchMerging(WIDTH).double()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in merging.parameters():
            parameter.normal_(generator=source)
    return merging


def random_tokens(layout: Layout) -> torch.Tensor:
    return torch.randn(
        layout.tokens, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("height, width", [(4, 6), (5, 4), (3, 7), (1, 1)])
def test_merge_path_equals_timm(height, width):
    merging = random_merging()
    other = TimmMerging(WIDTH).double()
    other.reduction.weight.data.copy_(merging.merge.weight)
    other.norm.load_state_dict(merging.norm.state_dict())
    layout = Layout((Group("hr", "global", 2, height, width),))
    x = random_tokens(layout).requires_grad_()
    y, halved = merging(x, layout, [True])
    grid = x.view(2, height, width, WIDTH).movedim(3, 1)
    whole = F.pad(grid, (0, width % 2, 0, height % 2), mode="replicate")
    z = other(whole.movedim(1, 3))
    assert (halved.groups[0].height, halved.groups[0].width) == z.shape[1:3]
    torch.testing.assert_close(y, z.reshape(y.shape), rtol=1e-10, atol=1e-10)
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad(y, [x, merging.merge.weight, *merging.norm.parameters()], upstream)
    wanted = torch.autograd.grad(
        z, [x, other.reduction.weight, *other.norm.parameters()], upstream.view_as(z)
    )
    for a, b in zip(ours, wanted):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_keep_path_keeps_the_grid():
    """Values and gradients of a linear layer and a layer norm, written out."""
    merging = random_merging()
    layout = Layout((Group("ms", "global", 3, 5, 2),))
    x = random_tokens(layout).requires_grad_()
    y, same = merging(x, layout, [False])
    z = x @ merging.keep.weight.T + merging.keep.bias
    z = z - z.mean(1, keepdim=True)
    expected = (
        z / (z.square().mean(1, keepdim=True) + 1e-5).sqrt() * merging.norm.weight
        + merging.norm.bias
    )
    assert same == layout
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    leaves = [x, *merging.keep.parameters(), *merging.norm.parameters()]
    for a, b in zip(*(torch.autograd.grad(found, leaves, upstream) for found in (y, expected))):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "flags", [[True, False, True], [False, True, False], [False] * 3, [True] * 3]
)
def test_mixed_groups_stay_in_order(flags):
    merging = random_merging()
    layout = Layout(
        (
            Group("hr", "global", 2, 4, 4),
            Group("ms", "global", 3, 2, 3),
            Group("hr", "local", 1, 2, 2),
        )
    )
    x = random_tokens(layout)
    y, after = merging(x, layout, flags)
    assert y.shape == (after.tokens, 2 * WIDTH)
    for part, group, flag, found in zip(layout.split(x), layout.groups, flags, after.split(y)):
        alone, _ = merging(part.reshape(-1, WIDTH), Layout((group,)), [flag])
        torch.testing.assert_close(found.reshape(alone.shape), alone, rtol=1e-12, atol=1e-12)


def test_paths_agree_at_the_start_on_equal_neighbours():
    """The keep path starts as the sum of the merge sub-blocks."""
    merging = PatchMerging(WIDTH).double()
    initialise(merging, seed=3)
    blocks = merging.merge.weight.view(2 * WIDTH, 4, WIDTH)
    torch.testing.assert_close(
        merging.keep.weight, blocks[:, 0] + blocks[:, 1] + blocks[:, 2] + blocks[:, 3]
    )
    layout = Layout((Group("hr", "global", 1, 2, 2),))
    x = random_tokens(Layout((Group("hr", "global", 1, 1, 1),))).expand(4, -1)
    merged, _ = merging(x, layout, [True])
    kept, _ = merging(x, layout, [False])
    torch.testing.assert_close(kept, merged.expand(4, -1), rtol=1e-8, atol=1e-8)
