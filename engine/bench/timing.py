"""Times of several functions in one run.

They take turns, so that whatever else the machine does slows all alike.

On a GPU device events bracket each phase and nothing waits between calls; before each call a buffer
larger than the last-level cache is overwritten, so no function finds its input there. On a CPU the
wall clock is read, and inputs that fit in a cache may lie there: compare rows with each other, not
with a data sheet.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

FLUSH_BYTES = 256 << 20  # several times the cache of any GPU
TURN_SECONDS = 0.05  # a function's turn should last: short functions are called often in a turn
MOST_CALLS = 50  # in a turn
# The first phase takes nothing, each other takes what the one before it returned.
Phases = Sequence[Callable[..., Any]]


class Stopwatch:
    """Times phases on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._flush: torch.Tensor | None = None
        if device.type == "cuda":
            self._flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)

    def turn(self, phases: Phases, calls: int = 1) -> list[float]:
        """Seconds of each phase, medians over the calls."""
        marks = [self._call(phases) for _ in range(calls)]
        if self._flush is not None:
            torch.cuda.synchronize(self.device)
        medians = []
        for start in range(len(phases)):
            seconds = [_seconds(row[start], row[start + 1]) for row in marks]
            medians.append(statistics.median(seconds))
        return medians

    def _call(self, phases: Phases) -> list:
        """Run the phases once; a time mark before the first and after each."""
        if self._flush is not None:
            self._flush.zero_()
        first, *others = phases
        marks = [self._now()]
        value = first()
        marks.append(self._now())
        for phase in others:
            value = phase(value)
            marks.append(self._now())
        return marks

    def _now(self) -> Any:
        """A time in seconds, or an event on a GPU."""
        if self._flush is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def _seconds(start: Any, end: Any) -> float:
    """Time between two marks."""
    if isinstance(start, float):
        return end - start
    return start.elapsed_time(end) / 1e3  # events count milliseconds


def interleaved(
    functions: Mapping[str, Phases], device: torch.device, rounds: int, warmup: int = 2
) -> dict[str, list[list[float]]]:
    """Time functions in turns.

    Args:
        functions: Name -> phases.
        device: Where they run.
        rounds: How often each has its turn.
        warmup: Calls of each before that. The last of them says how many calls fill a turn; with
            1, a function that compiles itself is called once a turn.

    Returns:
        Name -> for each round the seconds of each phase.
    """
    watch = Stopwatch(device)
    calls = {}
    for name, phases in functions.items():
        for _ in range(warmup - 1):
            watch.turn(phases)
        seconds = max(sum(watch.turn(phases)), 1e-9)
        calls[name] = min(MOST_CALLS, max(1, math.ceil(TURN_SECONDS / seconds)))
    times: dict[str, list[list[float]]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, phases in functions.items():
            times[name].append(watch.turn(phases, calls[name]))
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def times_faster(base: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """How many times faster than ``base``, round by round: ``spread`` of the ratios."""
    return spread([before / now for before, now in zip(base, seconds, strict=True)])
