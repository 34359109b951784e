"""Lines of a long run: few, and none that matters missing."""

import re

from data.jobs import progress as progress_module
from data.jobs.progress import ALWAYS, Progress


def test_first_lines_last_line_and_urgent_ones_are_said(monkeypatch):
    monkeypatch.setattr(progress_module, "PAUSE", 1e9)
    said = []
    progress = Progress(1000, done=10, unit="tiles", say=said.append)
    for number in range(10, 1000):
        progress.step(f"t-{number}", [f"note {number}"], urgent=number == 700)
    told = [*range(10, 10 + ALWAYS), 700, 999]
    assert said == [
        line for number in told for line in (f"note {number}", f"[{number + 1}/1000] t-{number}")
    ]


def test_rate_and_remaining_time_are_those_of_this_run(monkeypatch):
    clock = iter([0.0, 5.0, 100.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    said = []
    progress = Progress(1000, done=898, unit="tiles", say=said.append)
    progress.step("a")
    progress.step("b")
    assert said[0] == "[899/1000] a"
    assert re.fullmatch(
        r"\[900/1000\] b \(0.02 tiles/s, 1:23:20 left\)", said[1]
    )  # 100 more at 50 s each
