"""Lines for whoever watches the run."""

import os
import sys


def say(line: str) -> None:
    """Print a line at once.

    A terminal or a pipe may go while the run is to save and end, or to go on without a reader: from
    then on nothing is printed.
    """
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for the rest of the process)
