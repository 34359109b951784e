"""Reads one training step from a trace of torch.profiler: time by part, communication, busy device.

The source is the Chrome trace, the one form that joins spans, kernels and the calls that launched
them. torch's own summary, ``key_averages``, adds up times by name; it knows neither overlap nor
gaps, so it cannot tell which communication is hidden. Times in the trace are microseconds on one
clock; all results are seconds.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from engine.training.step import SPAN

STEP = "step"  # the span around the whole step, synchronised at both ends
OTHER = "between the parts"
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of what runs on a GPU
_LAUNCH = ("cuda_runtime", "cuda_driver")  # categories of the calls that start it
_MICRO = 1e-6


class Interval(NamedTuple):
    """From one time to another."""

    begin: float
    end: float


class Span(NamedTuple):
    """A part of the step."""

    begin: float
    end: float
    name: str


class KernelStart(NamedTuple):
    """When a kernel was launched by the host, and when it began on the device."""

    launched: float
    began: float


@dataclass(frozen=True)
class StepTrace:
    """Seconds of one step on one rank."""

    step: float
    parts: dict[str, float]  # in the order of the step; they add up to it
    communication: float  # exchanges between ranks, waiting for the slowest rank included
    exposed: float | None  # of these, while no other kernel ran; None on a CPU
    busy: float | None  # while any kernel ran; None on a CPU


def read_trace(path: Path) -> StepTrace:
    """Read the one step in a file that ``torch.profiler`` exported."""
    with open(path, encoding="utf-8") as file:
        return summarise(json.load(file)["traceEvents"])


def summarise(events: Iterable[dict]) -> StepTrace:
    """Sum up the events of one step.

    On a CPU a part is its span. On a GPU the host runs ahead, so there a part lasts from the first
    kernel that was launched in its span to the first kernel of the next part; it includes the gaps
    between its kernels.

    Args:
        events: a span named ``STEP`` around spans whose names begin with ``SPAN``, and what ran
            meanwhile.
    """
    notes = []
    launches = {}  # number that a call shares with its kernel -> time of the call
    kernels = []
    for event in events:
        if event.get("ph") != "X":  # no event with a duration
            continue
        category = event.get("cat")
        if category == "user_annotation":
            notes.append(event)
        elif category in _DEVICE:
            kernels.append(event)
        elif category in _LAUNCH and "correlation" in event.get("args", {}):
            launches[event["args"]["correlation"]] = event["ts"]
    [whole] = [_interval(event) for event in notes if event["name"] == STEP]
    spans = _spans(notes)
    exchanges = []
    for event in notes:
        if event["name"].startswith("gloo:"):
            exchanges.append(_interval(event))
    compute = []
    device = []
    for event in kernels:
        device.append(_interval(event))
        if event["name"].startswith("nccl"):
            exchanges.append(_interval(event))
        else:
            compute.append(_interval(event))
    exposed = None
    busy = None
    if kernels:
        spans = on_device(spans, _kernel_starts(launches, kernels), whole)
        busy_time = covered(device)
        busy = _MICRO * busy_time
        exposed = _MICRO * (busy_time - covered(compute))
    return StepTrace(
        step=_MICRO * (whole.end - whole.begin),
        parts=_parts(spans, whole),
        communication=_MICRO * covered(exchanges),
        exposed=exposed,
        busy=busy,
    )


def _spans(notes: Iterable[dict]) -> list[Span]:
    """The parts of the step on the host, in order."""
    spans = []
    for event in notes:
        if event["name"].startswith(SPAN):
            begin, end = _interval(event)
            spans.append(Span(begin, end, event["name"].removeprefix(SPAN)))
    return sorted(spans)


def _parts(spans: Iterable[Span], whole: Interval) -> dict[str, float]:
    """Seconds by part, and those between the parts."""
    parts: dict[str, float] = {}
    for begin, end, name in spans:
        parts[name] = parts.get(name, 0.0) + (end - begin)
    parts[OTHER] = whole.end - whole.begin - sum(parts.values())
    return {name: _MICRO * time for name, time in parts.items()}


def _kernel_starts(launches: Mapping[int, float], kernels: Iterable[dict]) -> list[KernelStart]:
    """Join kernels with the calls that launched them.

    A kernel that was launched outside the step belongs to no part and is left out.
    """
    starts = []
    for event in kernels:
        launched = launches.get(event["args"]["correlation"])
        if launched is not None:
            starts.append(KernelStart(launched, event["ts"]))
    return starts


def on_device(spans: Sequence[Span], starts: Iterable[KernelStart], whole: Interval) -> list[Span]:
    """The spans of the host as the device saw them; they fill ``whole``.

    A span without kernels keeps its time if the device had not begun. It has none if it ran beside
    the kernels of other spans.

    Args:
        spans: of the host, in order.
        starts: of all kernels.
        whole: the step.
    """
    begins = [span.begin for span in spans]
    first: dict[int, float] = {}  # number of the span -> begin of its first kernel
    for launched, began in starts:
        number = bisect_right(begins, launched) - 1
        if number >= 0 and launched <= spans[number].end:
            first[number] = min(began, first.get(number, began))
    device_began = min(first.values(), default=whole.end)
    names = []
    borders = []
    for number, span in enumerate(spans):
        if number in first or span.end <= device_began:
            names.append(span.name)
            borders.append(first.get(number, span.begin))
    borders[0] = whole.begin  # what the first part waits for belongs to it
    borders.append(whole.end)
    return [Span(begin, end, name) for name, (begin, end) in zip(names, pairwise(borders))]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total = 0.0
    reached = float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _interval(event: dict) -> Interval:
    return Interval(event["ts"], event["ts"] + event["dur"])
