"""Long commands that may be stopped, and continue when they are started again."""

import signal
import sys
from collections.abc import Callable

EXIT_CONTINUE = 75  # EX_TEMPFAIL, as in training: stopped by SIGTERM, the same command continues
EXIT_INTERRUPTED = 130  # what a shell expects after Ctrl-C
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stoppable(work: Callable[[], None]) -> int:
    """Do ``work`` and return the exit status.

    SIGTERM and Ctrl-C raise KeyboardInterrupt in it. Then one line is printed, and the status is
    EXIT_CONTINUE or EXIT_INTERRUPTED.
    """
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        for other in SIGNALS:  # leaving takes a moment, and one signal is enough
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        work()
    except KeyboardInterrupt:
        print("stopped: what is done is kept, the same command continues", file=sys.stderr)
        if received == [signal.SIGTERM]:
            return EXIT_CONTINUE
        return EXIT_INTERRUPTED
    return 0
