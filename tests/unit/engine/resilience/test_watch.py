"""Which rank the heartbeats accuse, and from when on."""

import os
import subprocess
import sys
from dataclasses import replace

from engine.config.settings import WatchdogSettings
from engine.resilience.heartbeat import Beat, read_beat, write_beat
from engine.resilience.progress import DATA, ENDED, SAVE, Progress
from engine.resilience.watch import Neighbour, stuck

SETTINGS = WatchdogSettings(steps=10, least=30, other=600, silence=20)


def beat(rank=0, **changes) -> Beat:
    """A rank of this machine whose process runs, in its backward pass."""
    progress = Progress(step=7, phase="backward", entered=70)
    return replace(Beat.now(progress, rank=rank, number=1), seconds=1.0, **changes)


def test_a_beat_comes_back_whole(tmp_path):
    assert read_beat(tmp_path, 3) is None
    write_beat(tmp_path, beat(3))
    assert read_beat(tmp_path, 3) == beat(3)


def test_a_part_of_a_step_may_take_some_usual_steps_but_a_least_time_in_any_case():
    for usual, limit in ((1.0, 30), (5.0, 50)):
        within = replace(beat(), seconds=limit - 1)
        late = replace(beat(), seconds=limit + 1)
        assert stuck([within], SETTINGS, usual) is None
        assert f"expected within {limit} s" in stuck([late], SETTINGS, usual).line


def test_what_is_unlike_a_step_has_its_own_limit():
    for phase in (DATA, SAVE):
        assert stuck([replace(beat(), phase=phase, seconds=599)], SETTINGS, 1.0) is None
        assert stuck([replace(beat(), phase=phase, seconds=601)], SETTINGS, 1.0) is not None
    # before the second step nobody knows how long one takes
    assert stuck([replace(beat(), seconds=599)], SETTINGS, 0.0) is None


def test_the_rank_that_is_behind_is_named_not_those_that_wait_for_it():
    waiting = [replace(beat(rank), seconds=40, entered=71) for rank in range(4)]
    waiting[2] = replace(waiting[2], phase="student", entered=66, host="node-7")
    verdict = stuck(waiting, SETTINGS, 1.0)
    assert (verdict.rank, verdict.host) == (2, "node-7")
    assert verdict.line == (
        "rank 2 on node-7, after 7 steps, student: no progress for 40 s, expected within 30 s"
    )


def test_where_all_wait_alike_the_network_is_suspected():
    verdict = stuck([replace(beat(rank), seconds=40) for rank in range(2)], SETTINGS, 1.0)
    assert verdict.line.endswith("; all ranks are there, look at the network")


def test_nobody_waits_for_a_rank_that_has_ended():
    ended = replace(beat(1), phase=ENDED, seconds=1000)
    assert stuck([beat(0), ended], SETTINGS, 1.0) is None
    assert Neighbour(SETTINGS).look(ended, now=0) is None


def test_silence_counts_by_the_clock_of_the_rank_that_listens():
    neighbour = Neighbour(SETTINGS)
    assert neighbour.look(None, now=0) is None  # it has not begun
    assert neighbour.look(beat(1), now=100) is None
    assert neighbour.look(beat(1), now=119) is None
    assert neighbour.look(replace(beat(1), number=2), now=125) is None
    assert "no heartbeat for 21 s" in neighbour.look(replace(beat(1), number=2), now=146).line


def test_a_process_of_this_machine_that_has_ended_is_noticed_at_once():
    process = subprocess.Popen([sys.executable, "-c", ""])
    dead = replace(beat(1), pid=process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet collected
    assert "has ended without a word" in Neighbour(SETTINGS).look(dead, now=0).line
    process.wait()
    assert "has ended without a word" in Neighbour(SETTINGS).look(dead, now=0).line
    elsewhere = replace(dead, host="node-7")  # where the number means another process
    assert Neighbour(SETTINGS).look(elsewhere, now=0) is None
