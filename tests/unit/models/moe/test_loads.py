"""Counts of the tokens that experts were sent and dropped, against counts by hand."""

import torch

from models.moe.layer import Routing
from models.moe.loads import TokenKind, dropped_counts, expert_load
from models.packing import Group, Layout

# two images of two tokens, then three tokens, then one prompt with one token
LAYOUT = Layout(
    (
        Group("ms", "global", 2, height=1, width=2),
        Group("hr", "global", 1, height=1, width=3),
        Group("ms", "local", 1, height=1, width=1, prefix=1),
    )
)
ROUTING = Routing(
    torch.zeros(()),
    torch.tensor([0, 2, -1, 2, 1, -1, 1, 0, 0]),
    torch.tensor([0, 0, 0, 1, 0, 0, 1, 1, 1], dtype=torch.bool),
    LAYOUT,
)


def test_expert_load_counts_by_modality():
    load = expert_load([ROUTING, ROUTING], experts=3, modalities=("hr", "ms", "sar"))
    assert load.tolist() == [[[0, 2, 0], [3, 0, 2], [0, 0, 0]]] * 2


def test_dropped_tokens_are_counted_by_sensor_and_view_size_over_all_layers():
    without_prompts = LAYOUT.with_prefix(0)
    last = Routing(torch.zeros(()), torch.zeros(8).long(), torch.arange(8) == 7, without_prompts)
    counts = dropped_counts([ROUTING, last])
    assert {kind: count.tolist() for kind, count in counts.items()} == {
        TokenKind("ms", "global"): [3 + 4, 1],
        TokenKind("hr", "global"): [2 + 3, 1],
        TokenKind("ms", "local"): [2 + 1, 2 + 1],
    }
    assert dropped_counts([]) == {}
