"""Why a run ends, and with which exit code."""

from enum import Enum

from engine.resilience.preempt import Request
from engine.resilience.signals import EXIT_CONTINUE


class Ending(Enum):
    """A reason to end the loop. In each case the state is saved first."""

    DONE = 0, "all steps are made"
    DIVERGED = 3, "all steps are made, but the last ones were skipped; see the warnings above"
    STOP_AT = 0, "the step of --stop_at is reached; --resume continues"
    STOP_FILE = 0, "a stop file asked for it; --resume continues"
    SIGNAL = EXIT_CONTINUE, "a signal asked for it; the same command with --resume continues"
    GUARD = 3, "the guard stopped it; see its warnings above"
    DATA = 2, "the data cannot be read; see the error above"

    def __init__(self, exit_code: int, reason: str):
        self.exit_code = exit_code  # 2 is that of every wrong input
        self.reason = reason


def requested(request: Request) -> Ending | None:
    """The ending that the ranks' vote asks for, None to go on."""
    if request == Request.SIGNAL:
        return Ending.SIGNAL
    if request == Request.STOP_FILE:
        return Ending.STOP_FILE
    return None
