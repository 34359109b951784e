"""Times of several functions in one run: they take turns, so that what else the machine does meets
all alike.

On a GPU device events bracket each phase and nothing waits between calls; before each call a buffer
larger than the last-level cache is overwritten, so no function finds its input there. On a CPU the
wall clock is read, and inputs that fit in a cache may lie there: compare rows, not with a data
sheet.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

FLUSH = 256 << 20  # bytes, several times the cache of any GPU
TURN = 0.05  # seconds a function's turn should last: short functions are called often in a turn
MOST = 50  # calls in a turn
Phases = Sequence[Callable]  # the first takes nothing, each other what the one before it returned


class Stopwatch:
    """Times phases on one device."""

    def __init__(self, device: torch.device):
        self.device = device
        cuda = device.type == "cuda"
        self._flush = torch.empty(FLUSH, dtype=torch.int8, device=device) if cuda else None

    def turn(self, phases: Phases, calls: int = 1) -> list[float]:
        """Seconds of each phase, medians over the calls."""
        marks = [self._call(phases) for _ in range(calls)]
        if self._flush is not None:
            torch.cuda.synchronize(self.device)
        gaps = [[_seconds(a, b) for a, b in zip(row, row[1:])] for row in marks]
        return [statistics.median(column) for column in zip(*gaps)]

    def _call(self, phases: Phases) -> list:
        if self._flush is not None:
            self._flush.zero_()
        marks, value = [self._now()], None
        for number, phase in enumerate(phases):
            value = phase(value) if number else phase()
            marks.append(self._now())
        return marks

    def _now(self):
        if self._flush is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def _seconds(a, b) -> float:
    return b - a if isinstance(a, float) else a.elapsed_time(b) / 1e3  # events say milliseconds


def interleaved(
    ways: Mapping[str, Phases], device: torch.device, rounds: int, warmup: int = 2
) -> dict[str, list[list[float]]]:
    """Name -> seconds by round and phase. ``warmup`` calls of each come first; the last of them
    says how many calls fill a turn, so with 1 a function that compiles itself is called once a
    turn."""
    watch = Stopwatch(device)
    calls = {}
    for name, phases in ways.items():
        for _ in range(warmup - 1):
            watch.turn(phases)
        calls[name] = min(MOST, max(1, math.ceil(TURN / max(sum(watch.turn(phases)), 1e-9))))
    found = {name: [] for name in ways}
    for _ in range(rounds):
        for name, phases in ways.items():
            found[name].append(watch.turn(phases, calls[name]))
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def times_faster(base: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """How many times faster than ``base``, round by round: ``spread`` of the ratios."""
    return spread([a / b for a, b in zip(base, seconds, strict=True)])
