"""One rank under supervision: it beats, looks at its neighbour, and leaves when the run has failed.

The first rank that knows why the run fails writes the verdict and says it, and nobody else says
anything. So one line stands on the screen, whatever the ranks that follow would have complained of.
"""

import contextlib
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from engine.config.settings import WatchdogSettings
from engine.errors import USER_ERRORS, RankError
from engine.resilience import failure
from engine.resilience.exchanges import write_exchanges
from engine.resilience.failure import Verdict
from engine.resilience.heartbeat import Beat, read_beat, write_beat
from engine.resilience.progress import ENDED, PROGRESS
from engine.resilience.room import Room
from engine.resilience.watch import Neighbour, lost, stuck

HEARTBEATS = "heartbeats"  # folder in the run folder
_LONGEST_PAUSE = 5.0  # seconds between two beats
_PATIENCE = 3.0  # seconds in which another rank may say why this one's partner has gone


def begin(run_dir: Path) -> None:
    """Remove the heartbeats of earlier attempts. Called on one rank, before any of them beats."""
    beats = run_dir / HEARTBEATS
    if beats.exists():
        shutil.rmtree(beats)
    beats.mkdir(parents=True)


class Supervision:
    """A context around the training of a rank.

    An error inside ends the process, with its traceback in a file. An error that all ranks raise
    alike (RankError) passes through.
    """

    def __init__(
        self,
        run_dir: Path,
        settings: WatchdogSettings,
        *,
        attempt: int,
        rank: int,
        world_size: int,
    ):
        """Begin nothing yet.

        Args:
            run_dir: Run folder.
            settings: Limits.
            attempt: Number of this start of the run.
            rank: Of this process.
            world_size: Number of ranks.
        """
        self.settings = settings
        self.rank = rank
        self.world_size = world_size
        self.beats = run_dir / HEARTBEATS
        self.folder = run_dir / failure.FAILURES / f"{attempt:08d}"
        self._room = Room(self.beats, rank)
        self._pause = min(_LONGEST_PAUSE, settings.silence / 4)
        self._number = 0  # beats so far
        self._closing = threading.Event()
        self._leaving = threading.Lock()  # held by the thread that ends the process
        self._thread = threading.Thread(target=self._supervise, name="heartbeat", daemon=True)

    def __enter__(self) -> "Supervision":
        try:
            self._room.keep()
        except OSError as error:
            print(f"warning: {self.beats}: no room can be kept for an error ({error})", flush=True)
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, RankError):
            self._fail(error)
        if isinstance(error, RankError) and _is_fault(error.__cause__):
            self._write_error(error.__cause__ or error)
            error.__cause__ = None  # it is in the file and need not be on the screen
        self._closing.set()
        self._thread.join()
        PROGRESS.enter(ENDED)
        self._beat()
        self._room.free()

    def _supervise(self) -> None:
        """The thread: beat, and look around."""
        right = (self.rank + 1) % self.world_size
        neighbour = Neighbour(self.settings)
        while not self._closing.wait(self._pause):
            self._beat()
            verdict = failure.read_verdict(self.folder)
            if verdict is not None:
                self._follow(verdict)
            if right != self.rank:
                verdict = neighbour.look(read_beat(self.beats, right), time.monotonic())
            if verdict is None and self.rank == 0 and self.settings.steps:
                verdict = stuck(self._all_beats(), self.settings, PROGRESS.usual_step())
            if verdict is not None:
                self._end(verdict)

    def _beat(self) -> None:
        """Write a heartbeat. On a full disk the next one may succeed; if none does, others act."""
        self._number += 1
        try:
            write_beat(self.beats, Beat.now(PROGRESS, rank=self.rank, number=self._number))
        except OSError as error:
            print(f"warning: {self.beats}: no heartbeat can be written ({error})", flush=True)

    def _all_beats(self) -> list[Beat]:
        """The last beat of each rank that has one."""
        beats = [read_beat(self.beats, rank) for rank in range(self.world_size)]
        return [beat for beat in beats if beat is not None]

    def _fail(self, error: Exception) -> None:
        """End the process because of an error of this rank."""
        self._write_error(error)
        verdict = failure.of_error(error, PROGRESS, self.rank)
        if failure.follows(error):
            time.sleep(_PATIENCE)
            verdict = self._lost_rank() or verdict
        self._end(verdict)

    def _lost_rank(self) -> Verdict | None:
        """The verdict on the first rank that has left no error file, if there is one."""
        for beat in self._all_beats():
            if not failure.error_file(self.folder, beat.rank).exists():
                return lost(beat)
        return None

    def _follow(self, verdict: Verdict) -> None:
        """End the process because another rank has said why the run fails."""
        self._leaving.acquire()
        self._write_stacks()
        os._exit(verdict.exit_code)

    def _end(self, verdict: Verdict) -> None:
        """Say why the run fails, unless another rank has said it, and end the process."""
        self._leaving.acquire()
        self._write_stacks()
        if self._claim(verdict):
            self._wait_for_stacks(verdict.rank)
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stdout.flush()
                os.write(2, f"error: {verdict.line}; see {self.folder}\n".encode())
        os._exit(verdict.exit_code)

    def _write_error(self, error: BaseException) -> None:
        """Write the traceback, if the disk can take it."""
        self._room.free()
        with contextlib.suppress(OSError):  # a full disk may be the error
            failure.write_error(self.folder, error, self.rank)

    def _write_stacks(self) -> None:
        """Write what was exchanged and where the threads stand, if the disk can take it."""
        self._room.free()
        with contextlib.suppress(OSError):
            write_exchanges(self.folder, self.rank)
            failure.write_stacks(self.folder, self.rank)

    def _claim(self, verdict: Verdict) -> bool:
        """Whether this rank is to say why the run fails: nobody has said it, as far as is known."""
        try:
            return failure.claim(self.folder, verdict)
        except OSError:
            return True  # twice is better than never

    def _wait_for_stacks(self, rank: int) -> None:
        """Give the other ranks the time for two beats to write where they stand."""
        end = time.monotonic() + 2 * self._pause
        others = set(range(self.world_size)) - {rank, self.rank}
        while others and time.monotonic() < end:
            time.sleep(0.05)
            others = {
                other for other in others if not failure.stacks_file(self.folder, other).exists()
            }


def _is_fault(cause: BaseException | None) -> bool:
    """Whether what is behind a RankError is nothing that a user can put right."""
    return cause is not None and not isinstance(cause, (*USER_ERRORS, OSError))
