"""Long commands that may be interrupted and go on when they are started again."""

import signal
import sys
from collections.abc import Callable

from launch.cli import run

EXIT_CONTINUE = 75  # EX_TEMPFAIL, as in training: stopped by SIGTERM, the same command continues
EXIT_INTERRUPTED = 130  # what a shell expects after Ctrl-C


def run_stoppable(main: Callable[[], int | None]) -> None:
    """``launch.cli.run``, with one line and EXIT_CONTINUE or EXIT_INTERRUPTED when SIGTERM or
    Ctrl-C ends it."""
    received = []

    def stop(number, frame) -> None:
        received.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):  # leaving takes a moment; once is enough
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    def guarded() -> int | None:
        try:
            return main()
        except KeyboardInterrupt:
            print("stopped: what is done is kept, the same command continues", file=sys.stderr)
            return EXIT_CONTINUE if received == [signal.SIGTERM] else EXIT_INTERRUPTED

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    run(guarded)
