"""Signals that ask a rank to stop. They are heard at any moment, even while a library blocks.

Python calls a signal's handler between two of its own instructions, so never while the main thread
waits inside an import, a connection or an exchange. Here the handlers do nothing: a thread reads
the numbers that the interpreter writes into a pipe at once.

Before the first step there is nothing to save, and a signal ends the process. From then on the
first signal is kept for the vote of the ranks (``preempt.py``). The same signal again ends the
process without waiting for a save.
"""

import contextlib
import os
import select
import signal
import threading
import time
from types import FrameType

from engine.resilience.launcher import Launcher

# EX_TEMPFAIL: the same command continues. SLURM's batch files put a job with it back in the queue.
EXIT_CONTINUE = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# The shell ignores these for nohup and for commands in the background, and so does the run.
_LEFT_IGNORED = (signal.SIGINT, signal.SIGHUP)
# Seconds in which the same signal is one request: a signal to the whole process group reaches a
# rank a second time through the deepspeed command.
_SAME_REQUEST = 3.0
_LOOK = 1.0  # seconds between looks at the launcher


class Signals:
    """Listens from its making until ``close``; made in the main thread."""

    def __init__(self) -> None:
        self.asked = False  # whether the run shall save and end
        self._holds = False
        self._first: dict[int, float] = {}  # signal -> time of the first one
        self._launcher = Launcher.of_this_process()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)  # as the interpreter wants it
        self._old_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._old_handlers = {}
        for number in SIGNALS:
            ignored = signal.getsignal(number) == signal.SIG_IGN
            if not (ignored and number in _LEFT_IGNORED):
                self._old_handlers[number] = signal.signal(number, _do_nothing)
        os.register_at_fork(after_in_child=self._ignore_all)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def hold(self) -> None:
        """From now on there is something to save: the first signal only sets ``asked``."""
        self._holds = True

    def close(self) -> None:
        """Restore the earlier handlers and end the thread."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_writer)
        self._closing.set()
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _ignore_all(self) -> None:
        """In a forked process: ignore the signals. Its parent ends it when it is time to.

        A signal to the whole process group would otherwise take the loader's processes away from
        the rank that is still to finish its step.
        """
        if self._closing.is_set():
            return
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _listen(self) -> None:
        """The thread: wait for signals, and look after the launcher."""
        while not self._closing.is_set():
            ready, _, _ = select.select([self._reader], [], [], _LOOK)
            if ready:
                for number in os.read(self._reader, 64):
                    if number in self._old_handlers:  # not those of a library, such as SIGCHLD
                        self._receive(number)
            if self._launcher is not None and self._launcher.is_gone():
                self._launcher = None
                self._ask("the deepspeed command is gone")

    def _receive(self, number: int) -> None:
        """Take in one signal."""
        name = signal.Signals(number).name
        now = time.monotonic()
        if now - self._first.setdefault(number, now) > _SAME_REQUEST:
            _leave(f"{name} again: ended without a save")
        self._ask(name)

    def _ask(self, cause: str) -> None:
        """Ask the run to end, or end it if there is nothing to save."""
        if not self._holds:
            _leave(f"{cause} before the first step: ended, nothing to save")
        self.asked = True


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler in Python, without which the interpreter would not write the number."""


def _leave(line: str) -> None:
    """End the process, whatever its other threads do. Rank 0 says why."""
    if os.environ.get("RANK", "0") == "0":
        # The terminal may be gone, which may be why the signal came.
        with contextlib.suppress(OSError):
            os.write(2, f"{line} (exit code {EXIT_CONTINUE})\n".encode())
    os._exit(EXIT_CONTINUE)
