"""Lines that say how far a long run is."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

FULL = 100  # things told of one by one before lines get rare
PAUSE = 1.0  # seconds between two lines afterwards
SETTLED = 10.0  # seconds before rate and remaining time are worth saying


class Progress:
    """Counts what is done and says ``[n/total] what``.

    Args:
        total: number of things, those of earlier runs included.
        done: how many earlier runs have made.
        unit: what is counted, in the plural.
        say: takes a line.
    """

    def __init__(self, total: int, done: int, unit: str, say: Callable[[str], None]):
        self.total, self.done, self.unit, self.say = total, done, unit, say
        self._before, self._start, self._last = done, time.monotonic(), 0.0

    def step(self, what: str, notes: Sequence[str] = (), urgent: bool = False) -> None:
        """One more is done. ``notes`` are lines that go before its own; an ``urgent`` one is always
        said."""
        self.done += 1
        now = time.monotonic()
        made = self.done - self._before
        if not (urgent or made <= FULL or self.done == self.total or now - self._last > PAUSE):
            return
        self._last = now
        for note in notes:
            self.say(note)
        self.say(f"[{self.done}/{self.total}] {what}{self._pace(made, now - self._start)}")

    def _pace(self, made: int, seconds: float) -> str:
        """' (3.1 tiles/s, 2:10:00 left)' once the run has been going for a while."""
        if seconds < SETTLED:
            return ""
        left = timedelta(seconds=round((self.total - self.done) * seconds / made))
        return f" ({made / seconds:.3g} {self.unit}/s, {left} left)"
