"""The packed axis and its table."""

import torch

from models.packing import Group, Layout, group_numbers, pack, token_mask

LAYOUT = Layout(
    (
        Group("hr", "global", 2, 3, 4),
        Group("ms", "local", 5, 1, 2, prefix=3),
        Group("sar", "local", 0, 2, 2),
    )
)


def test_split_returns_what_pack_joined():
    parts = [
        torch.randn(g.images, g.length, 6, generator=torch.Generator().manual_seed(1))
        for g in LAYOUT.groups
    ]
    packed = pack(parts)
    assert packed.shape == (2 * 12 + 5 * 5, 6) and LAYOUT.tokens == 49
    assert all(torch.equal(a, b) for a, b in zip(LAYOUT.split(packed), parts))
    assert LAYOUT.split(packed)[1].data_ptr() == packed[24].data_ptr()  # views, no copies


def test_prefix_changes_only_the_length():
    longer = LAYOUT.with_prefix(7)
    assert [g.length for g in longer.groups] == [19, 9, 11]
    assert longer.with_prefix(0) == Layout(
        tuple(Group(g.modality, g.view, g.images, g.height, g.width) for g in LAYOUT.groups)
    )


def test_token_mask_repeats_presence_for_every_token():
    present = [
        torch.tensor([True, False]),
        torch.tensor([False, True, True, False, True]),
        torch.zeros(0).bool(),
    ]
    expected = []
    for row, group in zip(present, LAYOUT.groups):
        for flag in row.tolist():
            expected += [flag] * (group.prefix + group.height * group.width)
    assert token_mask(LAYOUT, present).tolist() == expected


def test_tokens_know_their_group():
    numbers = group_numbers(LAYOUT, torch.device("cpu"))
    assert numbers.tolist() == 24 * [0] + 25 * [1]
