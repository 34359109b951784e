"""How every command ends: its exit status, and one line for an error that a user can put right."""

import logging
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn

from engine.errors import USER_ERRORS, RankError

EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 141  # what a shell reports of a process that SIGPIPE has ended
ROOMS = ("data", "engine", "models")  # whose log is shown


def run(command: Callable[[], int | None]) -> NoReturn:
    """Run ``command`` and leave the process with its exit status (None is 0).

    An error that a user can put right ends with ``error: <line>`` and status 2. Any other error is
    a fault of this project and keeps its traceback. When nobody reads the standard output any more,
    as in ``skysense ... | head``, the process leaves quietly.
    """
    _show_log()
    output = _standard_output()
    try:
        try:
            status = _run(command)
        finally:
            _flush()
    except BrokenPipeError:
        if not _is_abandoned(output):
            raise
        # What is still buffered goes nowhere: otherwise the interpreter would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_BROKEN_PIPE
    sys.exit(status)


def _run(command: Callable[[], int | None]) -> int:
    """Run ``command`` and return its exit status; print the errors that a user can put right."""
    try:
        return command() or 0
    except USER_ERRORS as error:
        fault = _fault_of_this_rank(error)
        if fault is not None:
            raise fault from None
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def _fault_of_this_rank(error: Exception) -> BaseException | None:
    """What is behind a RankError of this rank, if it is nothing that a user can put right."""
    cause = error.__cause__
    if not isinstance(error, RankError) or cause is None:
        return None
    if isinstance(cause, (*USER_ERRORS, OSError)) and not isinstance(cause, BrokenPipeError):
        return None
    return cause


def _show_log() -> None:
    """Show the project's log, such as which kernels run and why, on standard error.

    Of the ranks of a run only the first one speaks.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    for room in ROOMS:
        log = logging.getLogger(room)
        log.setLevel(logging.INFO)
        log.addHandler(logging.StreamHandler())
        log.propagate = False  # a library's handler on the root would say it again


def _flush() -> None:
    """Write out what is buffered for the standard output."""
    if sys.stdout is not None:  # it is None where the caller has closed it
        sys.stdout.flush()


def _standard_output() -> int | None:
    """A second descriptor of the standard output, which a command may redirect; None if closed."""
    try:
        return os.dup(1)
    except OSError:
        return None


def _is_abandoned(output: int | None) -> bool:
    """Whether ``output`` is a pipe that nobody reads any more."""
    if output is None:
        return False
    poll = select.poll()
    poll.register(output, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
