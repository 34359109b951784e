"""What a trace of torch.profiler says of one training step: time by part, communication, how long
the device worked.

Read from the Chrome trace, the one form that joins spans, kernels and the calls that launched them.
Its times are microseconds on one clock; all results are seconds.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from engine.training.step import SPAN

STEP = "step"  # the span around the whole step, synchronised at both ends
OTHER = "between the parts"
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of what runs on a GPU ...
_LAUNCH = (
    "cuda_runtime",
    "cuda_driver",
)  # ... and of the calls that start it, joined by "correlation"
_MICRO = 1e-6

Interval = tuple[float, float]  # begin, end


@dataclass(frozen=True)
class StepTrace:
    """Seconds of one step on one rank."""

    step: float
    parts: dict[str, float]  # in the order of the step; they add up to it
    communication: (
        float  # while an exchange between ranks ran, waiting for the slowest rank included
    )
    exposed: float | None  # of these, while no other kernel ran; None on a CPU
    busy: float | None  # while any kernel ran; None on a CPU


def read_trace(path: Path) -> StepTrace:
    """The one step in a file that ``torch.profiler`` exported."""
    with open(path, encoding="utf-8") as file:
        return summarise(json.load(file)["traceEvents"])


def summarise(events: Iterable[dict]) -> StepTrace:
    """Events of one step: a span named STEP around spans whose names begin with SPAN, and what ran
    meanwhile.

    On a CPU a part is its span. On a GPU the host runs ahead: there a part lasts from the first
    kernel launched in its span to the first kernel of the next part, and so has the gaps between
    its kernels.
    """
    events = [event for event in events if event.get("ph") == "X"]
    notes = [event for event in events if event.get("cat") == "user_annotation"]
    [whole] = [_interval(event) for event in notes if event["name"] == STEP]
    spans = sorted(
        (*_interval(event), event["name"].removeprefix(SPAN))
        for event in notes
        if event["name"].startswith(SPAN)
    )
    kernels = [event for event in events if event.get("cat") in _DEVICE]
    everything = [_interval(event) for event in kernels]
    exchange = [_interval(event) for event in notes if event["name"].startswith("gloo:")]
    exchange += [_interval(event) for event in kernels if event["name"].startswith("nccl")]
    exposed = busy = None
    if kernels:
        launched = {
            event["args"]["correlation"]: event["ts"]
            for event in events
            if event.get("cat") in _LAUNCH and "correlation" in event.get("args", {})
        }
        starts = [
            (launched[event["args"]["correlation"]], event["ts"])
            for event in kernels
            if event["args"]["correlation"] in launched
        ]  # one from outside the step belongs to no part
        spans = on_device(spans, starts, whole)
        busy = covered(everything)
        compute = [_interval(event) for event in kernels if not event["name"].startswith("nccl")]
        exposed = busy - covered(compute)
    parts = {name: 0.0 for *_, name in spans}
    for begin, end, name in spans:
        parts[name] += end - begin
    parts[OTHER] = whole[1] - whole[0] - sum(parts.values())
    return StepTrace(
        step=_MICRO * (whole[1] - whole[0]),
        parts={name: _MICRO * time for name, time in parts.items()},
        communication=_MICRO * covered(exchange),
        exposed=None if exposed is None else _MICRO * exposed,
        busy=None if busy is None else _MICRO * busy,
    )


def on_device(spans: Sequence[tuple], starts: Sequence[Interval], whole: Interval) -> list[tuple]:
    """Spans (begin, end, name) of the host as the device saw them; they fill ``whole``.

    ``starts``: when each kernel was launched and when it began. A span without kernels keeps its
    time if the device had not begun, and has none if it ran beside the kernels of others.
    """
    begins = [begin for begin, *_ in spans]
    first: dict[int, float] = {}
    for launch, start in starts:
        place = bisect_right(begins, launch) - 1
        if place >= 0 and launch <= spans[place][1]:
            first[place] = min(start, first.get(place, start))
    idle = min(first.values(), default=whole[1])  # until here
    borders = [
        (first.get(place, begin), name)
        for place, (begin, end, name) in enumerate(spans)
        if place in first or end <= idle
    ]
    borders[0] = (whole[0], borders[0][1])  # what the first part waits for is its own
    return [
        (begin, end, name) for (begin, name), (end, _) in pairwise(borders + [(whole[1], None)])
    ]


def covered(intervals: Iterable[Interval]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def _interval(event: dict) -> Interval:
    return event["ts"], event["ts"] + event["dur"]
