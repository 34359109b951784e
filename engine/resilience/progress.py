"""Where this process stands: its step, the part of the step, and since when.

There is one of it a process, because heartbeats and error files tell it of whatever the process was
doing. Every rank enters the same phases in the same order, so the number of phases entered says
which rank is behind.
"""

import time
from collections import deque
from dataclasses import dataclass, field
from statistics import median

_STEPS = 20  # recent steps whose usual duration counts

# Phases whose duration does not follow from that of a step.
START = "start"
DATA = "waiting for data"
SAVE = "saving"
EVALUATE = "evaluating"
GO_BACK = "going back"
ENDED = "ended"  # in good order; nobody waits for the rank any more
UNLIKE_STEPS = (START, DATA, SAVE, EVALUATE, GO_BACK)


@dataclass
class Progress:
    """The present phase."""

    step: int = 0  # steps made so far
    phase: str = START
    entered: int = 0  # phases so far
    since: float = field(default_factory=time.monotonic)  # of the phase
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS))  # of recent steps

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.phase = phase
        self.entered += 1
        self.since = time.monotonic()

    def made_step(self, seconds: float) -> None:
        """One more step is made."""
        self.step += 1
        self.seconds.append(seconds)

    def usual_step(self) -> float:
        """Median of the recent steps' seconds; 0 before the second one, for the first is slow."""
        recent = list(self.seconds)
        if len(recent) < 2:
            return 0.0
        return median(recent)


PROGRESS = Progress()
