"""Lines that say how far a long run is."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

ALWAYS = 100  # this many first things have a line each; later ones only now and then
PAUSE = 1.0  # seconds between two lines afterwards
SETTLED = 10.0  # seconds before rate and remaining time are worth saying


class Progress:
    """Counts what is done and says lines such as ``[3/40] tile-7``.

    Args:
        total: number of things, those of earlier runs included.
        done: how many earlier runs have made.
        unit: what is counted, in the plural.
        say: takes a line.
    """

    def __init__(self, total: int, *, done: int, unit: str, say: Callable[[str], None]):
        self.total = total
        self.done = done
        self.unit = unit
        self.say = say
        self._done_before = done
        self._start = time.monotonic()
        self._last_line = 0.0

    def step(self, what: str, notes: Sequence[str] = (), *, urgent: bool = False) -> None:
        """Count one more.

        Args:
            what: names it.
            notes: lines that go before its own.
            urgent: say it in any case.
        """
        self.done += 1
        now = time.monotonic()
        if not (urgent or self._is_due(now)):
            return
        self._last_line = now
        for note in notes:
            self.say(note)
        self.say(f"[{self.done}/{self.total}] {what}{self._pace(now - self._start)}")

    def _is_due(self, now: float) -> bool:
        """Whether the thing just counted has a line of its own."""
        if self.done - self._done_before <= ALWAYS or self.done == self.total:
            return True
        return now - self._last_line > PAUSE

    def _pace(self, seconds: float) -> str:
        """`` (3.1 tiles/s, 2:10:00 left)`` once the run has been going for a while."""
        if seconds < SETTLED:
            return ""
        done_now = self.done - self._done_before
        left = timedelta(seconds=round((self.total - self.done) * seconds / done_now))
        return f" ({done_now / seconds:.3g} {self.unit}/s, {left} left)"
