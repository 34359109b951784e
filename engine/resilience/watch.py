"""Judges heartbeats: which rank has died, has fallen silent, or does not come forward."""

import socket
from collections.abc import Sequence
from pathlib import Path

from engine.config.settings import WatchdogSettings
from engine.resilience.failure import Verdict
from engine.resilience.heartbeat import Beat, own_pids
from engine.resilience.progress import ENDED, UNLIKE_STEPS


def stuck(beats: Sequence[Beat], settings: WatchdogSettings, usual_step: float) -> Verdict | None:
    """The rank that holds the others up, if one has been in its phase for too long.

    Args:
        beats: The last one of each rank.
        settings: How long is too long.
        usual_step: Seconds of a step.
    """
    beats = [beat for beat in beats if beat.phase != ENDED]
    late = [beat for beat in beats if beat.seconds > _limit(beat, settings, usual_step)]
    if not late:
        return None
    # Those that wait for it are ahead of it, or in the same phase.
    behind = min(beats, key=lambda beat: beat.entered)
    longest = max(late, key=lambda beat: beat.seconds)
    limit = _limit(longest, settings, usual_step)
    line = f"{behind.place}: no progress for {longest.seconds:.0f} s, expected within {limit:.0f} s"
    if len(beats) > 1 and all(beat.entered == behind.entered for beat in beats):
        line += "; all ranks are there, look at the network"
    return Verdict(behind.rank, behind.host, "stuck", line)


def _limit(beat: Beat, settings: WatchdogSettings, usual_step: float) -> float:
    """Seconds that a phase may take."""
    if beat.phase in UNLIKE_STEPS or usual_step == 0:
        return settings.other
    return max(settings.least, settings.steps * usual_step)


def lost(beat: Beat) -> Verdict:
    """The verdict on a rank whose process has ended."""
    line = f"{beat.place}: the process has ended without a word (killed? out of memory?)"
    return Verdict(beat.rank, beat.host, "lost", line)


class Neighbour:
    """Follows the beats of one other rank. Every rank has a neighbour that follows it."""

    def __init__(self, settings: WatchdogSettings):
        self.settings = settings
        self._last: Beat | None = None
        self._changed = 0.0  # when ``_last`` was first seen, by this rank's clock

    def look(self, beat: Beat | None, now: float) -> Verdict | None:
        """Take in the rank's newest beat at a time in seconds; what is wrong with the rank."""
        if beat is None or beat.phase == ENDED:
            return None
        if beat != self._last:
            self._last = beat
            self._changed = now
        if has_ended(beat):
            return lost(beat)
        silent = now - self._changed
        limit = self.settings.silence
        if beat.phase in UNLIKE_STEPS:  # a library may keep the interpreter busy
            limit = self.settings.other
        if silent <= limit:
            return None
        line = f"{beat.place}: no heartbeat for {silent:.0f} s (stopped? host or disk gone?)"
        return Verdict(beat.rank, beat.host, "lost", line)


def has_ended(beat: Beat) -> bool:
    """Whether a rank's process is known to have ended: only where its number can be looked up."""
    if beat.host != socket.gethostname() or beat.pids != own_pids():
        return False
    try:
        fields = Path(f"/proc/{beat.pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] == b"Z"  # ended, and nobody has collected it
