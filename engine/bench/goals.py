"""Whether our candidate of a case reaches its goals."""

from collections.abc import Sequence

from engine.bench.case import Goal


def judge(goal: Goal, rows: Sequence[dict]) -> dict:
    """Judge one goal by the measured rows of a case.

    Returns:
        The goal in words, what our candidate reached (``found``), and whether that is enough
        (``met``). Both are None where the goal was not measured.
    """
    reached = _reached(goal, rows)
    return {
        "goal": _words(goal),
        "kind": goal.kind,
        "bound": goal.bound,
        "found": reached,
        "met": _is_met(goal, reached),
    }


def _words(goal: Goal) -> str:
    if goal.kind == "speed":
        return f"{goal.part}: {goal.bound:g} x {goal.than}"
    if goal.kind == "copy":
        return f"{goal.part}: {100 * goal.bound:g} % of the copy rate"
    return f"{goal.part}: at most {100 * goal.bound:g} % of the extra memory of {goal.than}"


def _is_met(goal: Goal, reached: float | None) -> bool | None:
    if reached is None:
        return None
    if goal.kind == "memory":
        return reached <= goal.bound
    return reached >= goal.bound


def _reached(goal: Goal, rows: Sequence[dict]) -> float | None:
    """What our candidate reached; None where it, or what it is compared with, was not measured."""
    ours = None
    other = None
    for row in rows:
        if row["part"] != goal.part:
            continue
        if row["ours"] and ours is None:
            ours = row
        if row["way"] == goal.than:
            other = row
    if ours is None:
        return None
    if goal.kind == "copy":
        return ours["copy_share"]
    if other is None:
        return None
    if goal.kind == "speed":
        return ours["faster"][goal.than]["median"]
    return ours["extra_bytes"] / other["extra_bytes"]
