"""One case: first the values of all candidates, then times and memory of those that are right."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.bench.case import BACKWARD, BOTH, FORWARD, Candidate, Case
from engine.bench.goals import judge
from engine.bench.memory import extra_bytes, result_bytes
from engine.bench.timing import interleaved, spread, times_faster

log = logging.getLogger(__name__)
RIGHT = "right"
WRONG = "wrong"
FAILED = "failed"
CANNOT_RUN = "cannot run here"
Seconds = Mapping[str, Mapping[str, list[float]]]  # part -> candidate -> seconds by round


@dataclass(frozen=True)
class Expected:
    """What the candidates must give.

    Attributes:
        results: The result and, with leaves, the gradients, in float64.
        gradient: A random gradient of the result that all candidates are given.
    """

    results: list[Tensor]
    gradient: Tensor | None


def compare(case: Case, device: torch.device, rounds: int, rates: Mapping[str, float]) -> dict:
    """Measure all candidates of a case.

    A candidate of others that cannot run here is reported with its reason. One of ours that cannot,
    or values beyond the tolerance, are failures.

    Args:
        case: What is compared.
        device: Where it runs.
        rounds: How often the candidates take turns.
        rates: "copy" in bytes/s, and the name of a type -> FLOP/s of its products.

    Returns:
        Everything measured, ready for JSON.
    """
    expected = _expected(case)
    gradient = expected.gradient
    checks = {}
    for candidate in case.candidates:
        checks[candidate.name] = _check(candidate, expected, case.tolerance)
    del expected  # beside the copies of the inputs nothing stays while memory is measured
    right = []
    for candidate in case.candidates:
        if checks[candidate.name]["state"] == RIGHT:
            right.append(candidate)
    seconds = _times(right, gradient, device, rounds)
    rows = []
    for candidate in right:
        memory = _memory(candidate, gradient, device)
        for part in case.parts():
            row = _row(candidate, part, case, seconds=seconds, rates=rates)
            rows.append({**row, "extra_bytes": memory.get(part)})
    return {
        "case": case.name,
        "size": case.size,
        "tolerance": case.tolerance,
        "checks": checks,
        "rows": rows,
        "left_out": dict(case.left_out),
        "goals": [judge(goal, rows) for goal in case.goals],
        "failed": any(check["state"] in (WRONG, FAILED) for check in checks.values()),
    }


# ---- values


def _expected(case: Case) -> Expected:
    """Results in float64."""
    out = case.exact.call()
    if not case.exact.leaves:
        return Expected([out], None)
    gradient = torch.ones_like(out)
    if out.ndim:
        generator = torch.Generator(out.device).manual_seed(1)
        gradient = torch.randn(out.shape, generator=generator, device=out.device)
    gradient = gradient.bfloat16()  # exact in every type that is compared
    gradients = torch.autograd.grad(out, case.exact.leaves, gradient.to(out.dtype))
    return Expected([out.detach(), *gradients], gradient)


def _check(candidate: Candidate, expected: Expected, tolerance: float) -> dict:
    """ "state" and, of a candidate that ran, the relative errors and the size of its results."""
    try:
        # twice: a result that changes is a race, and the second call does not find fresh memory
        first = _results(candidate, expected.gradient)
        second = _results(candidate, expected.gradient)
        first_errors = _relative_errors(first, expected.results)
        second_errors = _relative_errors(second, expected.results)
    # any library may refuse in its own manner; the reason is printed, ours fail the command
    except Exception as error:
        log.debug("%s", candidate.name, exc_info=True)
        state = CANNOT_RUN
        if candidate.ours:
            state = FAILED
        return {"state": state, "reason": _reason(error)}
    worst = []
    for pair in zip(first_errors, second_errors):
        if all(map(math.isfinite, pair)):
            worst.append(max(pair))
        else:
            worst.append(math.inf)
    state = WRONG
    if max(worst) <= tolerance:
        state = RIGHT
    return {
        "state": state,
        "errors": [_finite_or_none(error) for error in worst],
        "result_bytes": result_bytes(first),
    }


def _results(candidate: Candidate, gradient: Tensor | None) -> list[Tensor]:
    """The result and, with a gradient of it, those of the leaves."""
    if gradient is None:
        return _forward(candidate)
    out = candidate.call()
    gradients = torch.autograd.grad(out, candidate.leaves, gradient.to(out.dtype))
    return [out.detach(), *gradients]


def _forward(candidate: Candidate) -> list[Tensor]:
    """The result without gradients."""
    with torch.no_grad():
        return [candidate.call()]


def _relative_errors(results: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Errors by norm: infinite for another shape; NaN stays.

    Where the expected values are zero, as for experts without tokens, only zero is right.
    """
    smallest = torch.finfo(torch.float64).tiny
    errors = []
    for result, exact in zip(results, expected, strict=True):
        if result.shape != exact.shape:
            errors.append(math.inf)
            continue
        norm = exact.norm().clamp(min=smallest)
        errors.append(float((result.double() - exact).norm() / norm))
    return errors


def _finite_or_none(error: float) -> float | None:
    """JSON has no infinity."""
    if math.isfinite(error):
        return error
    return None


def _reason(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:160]}"


# ---- times and memory


def _times(
    candidates: list[Candidate], gradient: Tensor | None, device: torch.device, rounds: int
) -> Seconds:
    """Seconds of each part; with a gradient also of the backward pass and of both together."""
    phases: dict[str, list[Callable]] = {}
    for candidate in candidates:
        phases[candidate.name] = [_without_gradients(candidate)]
    times = interleaved(phases, device, rounds)
    seconds = {FORWARD: _each_round(times, lambda row: row[0])}
    if gradient is not None:
        for candidate in candidates:
            phases[candidate.name] = [candidate.call, _backward(candidate, gradient)]
        times = interleaved(phases, device, rounds)
        seconds[BACKWARD] = _each_round(times, lambda row: row[1])
        seconds[BOTH] = _each_round(times, sum)
    return seconds


def _each_round(
    times: Mapping[str, list[list[float]]], take: Callable[[list[float]], float]
) -> dict[str, list[float]]:
    """Candidate -> one number of each round."""
    return {name: [take(row) for row in rows] for name, rows in times.items()}


def _without_gradients(candidate: Candidate) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.no_grad():
            return candidate.call()

    return call


def _backward(candidate: Candidate, gradient: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    casts: dict[torch.dtype, Tensor] = {}

    def call(out: Tensor) -> tuple[Tensor, ...]:
        if out.dtype not in casts:  # cast at the warm-up
            casts[out.dtype] = gradient.to(out.dtype)
        return torch.autograd.grad(out, candidate.leaves, casts[out.dtype])

    return call


def _memory(candidate: Candidate, gradient: Tensor | None, device: torch.device) -> dict[str, int]:
    """Part -> extra bytes of a call that is warm; with gradients the two parts together."""
    memory = {FORWARD: extra_bytes(lambda: _forward(candidate), device)}
    if gradient is not None:
        memory[BOTH] = extra_bytes(lambda: _results(candidate, gradient), device)
    return memory


def _row(
    candidate: Candidate, part: str, case: Case, *, seconds: Seconds, rates: Mapping[str, float]
) -> dict:
    """What was measured of one part of a candidate."""
    times = seconds[part][candidate.name]
    median = spread(times)["median"]
    work = case.work_of(part)
    copy_share = None
    if work.bytes:
        copy_share = work.bytes / median / rates["copy"]
    product_share = None
    if work.flops:
        product_share = work.flops / median / rates[str(case.products)]
    base = None
    if case.candidates[0].name in seconds[part]:
        base = case.candidates[0].name
    return {
        "way": candidate.name,
        "ours": candidate.ours,
        "part": part,
        "seconds": times,
        **spread(times),
        "faster": {name: times_faster(other, times) for name, other in seconds[part].items()},
        "base": base,
        "copy_share": copy_share,
        "product_share": product_share,
    }
