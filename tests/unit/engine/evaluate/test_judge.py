"""Figures of methods, and whether the teacher is better than chance."""

import torch

from engine.evaluate.items import tile_items
from engine.evaluate.judge import TEACHER, SeedScores, compare, judge

ITEMS = 400


def judged(name: str, share: float, seed: int):
    """A method that is right for a share of the items."""
    names = [("a",) if number % 2 else ("b",) for number in range(ITEMS)]
    groups = [str(number) for number in range(ITEMS)]
    items = tile_items(names, ["a", "b"], several=False, groups=groups, splits=["test"] * ITEMS)
    draw = torch.Generator().manual_seed(seed)
    right = torch.rand(ITEMS, generator=draw) < share
    scores = items.targets.where(right[:, None], 1 - items.targets)
    tested = SeedScores(torch.arange(ITEMS), scores, {5: scores})
    return judge(name, items, [tested, tested], ["k 5"])


def test_a_clear_gain_is_a_gain_and_a_small_one_is_not():
    row, teacher = judged(TEACHER, 0.8, 0)
    assert abs(row.figures["accuracy"].value - 0.8) < 0.06
    assert row.sweep[5] == row.figures["accuracy"].value
    _, low = judged("pixels", 0.6, 1)
    _, lower = judged("random", 0.4, 2)
    clear = compare("k-NN", "accuracy", {TEACHER: teacher, "random": lower, "pixels": low})
    assert clear.rival == "pixels"
    assert clear.beats
    assert "beats the best of the others, pixels, by" in str(clear)
    _, equal = judged("pixels", 0.79, 3)
    same = compare("k-NN", "accuracy", {TEACHER: teacher, "pixels": equal})
    assert not same.beats
    assert "no difference to pixels is shown" in str(same)
    worse = compare("linear", "accuracy", {TEACHER: lower, "pixels": low})
    assert "points worse than pixels" in str(worse)
