"""One case: first the values of all ways, then times and memory of those that are right."""

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from engine.bench.case import BACKWARD, BOTH, FORWARD, Case, Goal, Way
from engine.bench.memory import extra_bytes, result_bytes
from engine.bench.timing import interleaved, spread, times_faster

log = logging.getLogger(__name__)


def compare(case: Case, device: torch.device, rounds: int, rates: dict) -> dict:
    """Everything measured of a case, ready for JSON.

    ``rates``: "copy" in bytes/s and the name of a type -> FLOP/s of its products. A way of others
    that cannot run here is reported with its reason; one of ours that cannot, or values beyond the
    tolerance, are failures.
    """
    # beside the copies of the inputs only the expected values stay
    expected, gradient = _expected(case)
    checks = {way.name: _check(way, expected, gradient, case.tolerance) for way in case.ways}
    del expected
    right = [way for way in case.ways if checks[way.name]["state"] == "right"]
    seconds = _times(right, gradient, device, rounds)
    memory = {way.name: _memory(way, gradient, device) for way in right}
    rows = [_row(way, part, case, seconds, memory, rates) for way in right for part in case.parts()]
    return {
        "case": case.name,
        "size": case.size,
        "tolerance": case.tolerance,
        "checks": checks,
        "rows": rows,
        "left_out": dict(case.left_out),
        "goals": [_judge(goal, rows) for goal in case.goals],
        "failed": any(check["state"] in ("wrong", "failed") for check in checks.values()),
    }


# ---- values


def _expected(case: Case) -> tuple[list[Tensor], Tensor | None]:
    """Result and gradients in float64, and a random gradient of the result that all ways are given."""
    out = case.exact.call()
    if not case.exact.leaves:
        return [out], None
    generator = torch.Generator(out.device).manual_seed(1)
    gradient = (
        torch.randn(out.shape, generator=generator, device=out.device)
        if out.ndim
        else torch.ones_like(out)
    )
    gradient = gradient.bfloat16()  # exact in every type that is compared
    found = torch.autograd.grad(out, case.exact.leaves, gradient.to(out.dtype))
    return [out.detach(), *found], gradient


def _check(way: Way, expected: list[Tensor], gradient: Tensor | None, tolerance: float) -> dict:
    """ "state" and, of a way that ran, the relative errors of result and gradients, and how large
    these are."""
    try:
        # twice: a result that moves is a race, and the second call does not find fresh memory
        found = [_results(way, gradient) for _ in range(2)]
        errors = [_errors(results, expected) for results in found]
    # any library may refuse in its own manner; the reason is printed, ours fail the command
    except Exception as error:
        log.debug("%s", way.name, exc_info=True)
        return {"state": "failed" if way.ours else "cannot run here", "reason": _reason(error)}
    worst = [max(pair) if all(map(math.isfinite, pair)) else math.inf for pair in zip(*errors)]
    return {
        "state": "right" if max(worst) <= tolerance else "wrong",
        "errors": [
            error if math.isfinite(error) else None for error in worst
        ],  # JSON has no infinity
        "result_bytes": result_bytes(found[0]),
    }


def _results(way: Way, gradient: Tensor | None) -> list[Tensor]:
    if gradient is None:
        with torch.no_grad():
            return [way.call()]
    out = way.call()
    return [out.detach(), *torch.autograd.grad(out, way.leaves, gradient.to(out.dtype))]


def _errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """By norm; inf for another shape, NaN stays. Where nothing is expected, as of experts without
    tokens, only zero is right."""
    least = torch.finfo(torch.float64).tiny
    return [
        float((a.double() - b).norm() / b.norm().clamp(min=least))
        if a.shape == b.shape
        else math.inf
        for a, b in zip(found, expected, strict=True)
    ]


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160] if lines else 'no message'}"


# ---- times and memory


def _times(ways: list[Way], gradient: Tensor | None, device: torch.device, rounds: int) -> dict:
    """part -> way -> seconds by round."""

    def forward(way: Way) -> Callable[[], Tensor]:
        def call():
            with torch.no_grad():
                return way.call()

        return call

    found = interleaved({way.name: [forward(way)] for way in ways}, device, rounds)
    seconds = {FORWARD: {name: [row[0] for row in rows] for name, rows in found.items()}}
    if gradient is not None:
        phases = {way.name: [way.call, _backward(way, gradient)] for way in ways}
        found = interleaved(phases, device, rounds)
        seconds[BACKWARD] = {name: [row[1] for row in rows] for name, rows in found.items()}
        seconds[BOTH] = {name: [sum(row) for row in rows] for name, rows in found.items()}
    return seconds


def _backward(way: Way, gradient: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    given = {}

    def call(out):
        if out.dtype not in given:  # cast at the warm-up
            given[out.dtype] = gradient.to(out.dtype)
        return torch.autograd.grad(out, way.leaves, given[out.dtype])

    return call


def _memory(way: Way, gradient: Tensor | None, device: torch.device) -> dict[str, int]:
    """part -> extra bytes of a call that is warm; with gradients the two parts together."""

    def forward():
        with torch.no_grad():
            return [way.call()]

    found = {FORWARD: extra_bytes(forward, device)}
    if gradient is not None:
        found[BOTH] = extra_bytes(lambda: _results(way, gradient), device)
    return found


def _row(way: Way, part: str, case: Case, seconds: dict, memory: dict, rates: dict) -> dict:
    taken, work = seconds[part][way.name], case.work_of(part)
    middle = spread(taken)["median"]
    base = seconds[part].get(case.ways[0].name)
    return {
        "way": way.name,
        "ours": way.ours,
        "part": part,
        "seconds": taken,
        **spread(taken),
        "faster": {name: times_faster(other, taken) for name, other in seconds[part].items()},
        "base": case.ways[0].name if base else None,
        "copy_share": work.bytes / middle / rates["copy"] if work.bytes else None,
        "product_share": work.flops / middle / rates[str(case.products)] if work.flops else None,
        "extra_bytes": memory[way.name].get(part),
    }


# ---- goals


def _judge(goal: Goal, rows: list[dict]) -> dict:
    """The goal in words, what our way reached, and whether that is enough; None where it was not
    measured."""
    by_way = {row["way"]: row for row in rows if row["part"] == goal.part}
    ours = next((row for row in by_way.values() if row["ours"]), None)
    other = by_way.get(goal.than)
    found = None
    if goal.kind == "speed":
        text = f"{goal.part}: {goal.bound:g} x {goal.than}"
        found = ours["faster"][goal.than]["median"] if ours and other else None
    elif goal.kind == "copy":
        text = f"{goal.part}: {100 * goal.bound:g} % of the copy rate"
        found = ours["copy_share"] if ours else None
    else:
        text = f"{goal.part}: at most {100 * goal.bound:g} % of the extra memory of {goal.than}"
        found = ours["extra_bytes"] / other["extra_bytes"] if ours and other else None
    enough = (
        None
        if found is None
        else found <= goal.bound
        if goal.kind == "memory"
        else found >= goal.bound
    )
    return {"goal": text, "kind": goal.kind, "bound": goal.bound, "found": found, "met": enough}
